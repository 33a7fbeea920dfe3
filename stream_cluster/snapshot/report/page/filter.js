// Which clusters are shown, in which order.

const keys = {
  size: columns.size,
  cohesion: columns.cohesion,
  weakest: columns.weakest,
  bridges: columns.bridges,
  first: columns.first,
  last: columns.last,
  span: columns.first.map((first, cluster) => first === null ? null : columns.last[cluster] - first),
  cameras: columns.sourceCounts,
  component: columns.component?.map((component, cluster) => component < 0 ? columns.size[cluster] : columns.componentObjects[component]),
  low: columns.low,
};
// What is looked for comes first: large clusters, loose ones, early ones.
const descending = { size: true, cohesion: false, weakest: false, bridges: true, first: false, last: true, span: true, cameras: true, component: true, low: true };

function matching(text, inTracks, inIds) {
  const wanted = text.toLowerCase();
  const found = new Uint8Array(clusterCount);
  for (let number = 0; number + 1 < facts.memberBlocks.length; number++) {
    const block = cached("members-" + number);
    const tracks = block.tracks.map((track) => inTracks && track.toLowerCase().includes(wanted));
    const anyTrack = tracks.includes(true);
    let cluster = facts.memberBlocks[number];
    const first = memberStarts[cluster];
    for (let local = 0; local < block.id.length; local++) {
      while (first + local >= memberStarts[cluster + 1]) cluster++;
      if ((anyTrack && tracks[block.track[local]]) || (inIds && block.id[local].toLowerCase().includes(wanted))) found[cluster] = 1;
    }
  }
  return found;
}

function valueOf(id) {
  const text = byId(id).value.trim();
  return text === "" ? null : text;
}

function numberOf(id) {
  const text = valueOf(id);
  return text === null || Number.isNaN(Number(text)) ? null : Number(text);
}

function timeOf(id) {
  const text = valueOf(id);
  return text === null ? null : Date.parse(text + "Z") - facts.baseMs;
}

function tests() {
  const found = [];
  const between = (column, from, to) => {
    if (from !== null) found.push((cluster) => column[cluster] !== null && column[cluster] >= from);
    if (to !== null) found.push((cluster) => column[cluster] !== null && column[cluster] <= to);
  };
  const scaled = (value) => value === null ? null : value * 10000;
  between(columns.size, numberOf("size-from"), numberOf("size-to"));
  between(columns.cohesion, scaled(numberOf("cohesion-from")), scaled(numberOf("cohesion-to")));
  between(columns.last, timeOf("time-from"), null);
  between(columns.first, null, timeOf("time-to"));
  if (byId("merged").checked) found.push((cluster) => columns.component[cluster] >= 0);
  if (byId("low").checked) found.push((cluster) => columns.low[cluster] > 0);
  if (byId("bridged").checked) found.push((cluster) => columns.bridges[cluster] > 0);
  const source = valueOf("source");
  if (source !== null) {
    found.push((cluster) => {
      for (let at = sourceStarts[cluster]; at < sourceStarts[cluster + 1]; at++) {
        if (columns.sources[at] === Number(source)) return true;
      }
      return false;
    });
  }
  const text = valueOf("search"), track = valueOf("track");
  if (text !== null && /^#\d+$/.test(text)) found.push((cluster) => cluster === Number(text.slice(1)));
  else if (text !== null && columns.component !== undefined && /^component \d+$/.test(text)) {
    const component = Number(text.slice(10));
    found.push((cluster) => columns.component[cluster] === component);
  } else if (text !== null) {
    const hits = matching(text, true, true);
    found.push((cluster) => hits[cluster] === 1);
  }
  if (track !== null) {
    const hits = matching(track, true, false);
    found.push((cluster) => hits[cluster] === 1);
  }
  return found;
}

function chosenClusters(sort, isDescending) {
  const all = tests();
  const chosen = [];
  for (let cluster = 0; cluster < clusterCount; cluster++) {
    if (all.every((test) => test(cluster))) chosen.push(cluster);
  }
  const key = keys[sort], sign = isDescending ? -1 : 1;
  // What has no value comes last either way; equal ones keep their numbers' order.
  return chosen.sort((a, b) => {
    const x = key[a], y = key[b];
    if (x === y) return a - b;
    if (x === null) return 1;
    if (y === null) return -1;
    return sign * (x - y);
  });
}
