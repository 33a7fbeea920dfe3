// One cluster, opened.

const MEMBERS_AT_ONCE = 60;
const dialog = byId("cluster");
let opened = -1;

function fact(name, ...value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
}

function captioned(member, extra) {
  const picture = hasPictures ? face(member) : null;
  const link = picture !== null && member.path !== null
    ? make("a", { href: member.path, target: "_blank", rel: "noopener", "aria-label": `Whole image of ${visible(member.id)}` }, picture) : picture;
  return make("figure", {}, link, make("figcaption", {},
    make("code", {}, foreign(member.id)),
    make("span", {}, timeText(member.time)),
    member.source === null ? null : make("span", {}, foreign(member.source)),
    member.track === null ? null : make("span", { class: "track" }, "track ", foreign(member.track)),
    member.low ? make("span", { class: "mark-low" }, "low quality") : null,
    extra));
}

const toCentre = (member) => make("span", { class: "central" }, `${member.central.toFixed(3)} to the centre`);

function weakestPair(cluster) {
  const a = columns.a[cluster], b = columns.b[cluster];
  if (a < 0 || b < 0) return null;
  const below = columns.bridges[cluster] > 0
    ? ` The cluster hangs together by ${plural(columns.bridges[cluster], "bridge, a link", "bridges, links")} just above the threshold without which it falls into large parts.` : "";
  const ofSample = sampled.has(cluster) ? " The cluster is too large to compare all of it: the pair and the bridges are of a sample." : "";
  return make("section", { class: "pair", "aria-labelledby": "pair-heading" },
    make("h3", { id: "pair-heading" }, "The weakest link"),
    make("div", { class: "two" }, captioned(memberAt(cluster, a), null),
      make("p", { class: "between" }, make("strong", {}, (columns.weakest[cluster] / 10000).toFixed(4)), make("span", {}, "similarity")),
      captioned(memberAt(cluster, b), null)),
    make("p", { class: "note" }, `The pair that holds this cluster together least; the threshold is ${facts.threshold}.` + below + ofSample));
}

const COMPONENT_AT_ONCE = 40;

function componentNote(cluster) {
  const component = componentOf(cluster);
  if (component < 0) return null;
  const count = columns.componentClusters[component];
  const others = [];
  for (let other = 0; other < clusterCount && others.length < COMPONENT_AT_ONCE; other++) {
    if (other !== cluster && columns.component[other] === component) others.push(other);
  }
  const list = make("ul", { class: "others" }, ...others.map((other) => make("li", {},
    make("button", { type: "button", "data-open": other }, `#${other}`, make("span", {}, ` ${plural(columns.size[other], "object", "objects")}`)))));
  return make("section", { class: "one-component", "aria-labelledby": "component-heading" },
    make("div", { class: "heading" }, make("h3", { id: "component-heading" }, "What connected components would have merged"),
      make("button", { type: "button", "data-component": component }, "Show their cards")),
    make("p", { class: "note" }, `At this threshold links connect this cluster with ${plural(count - 1, "other", "others")}: `
      + `one component of ${plural(columns.componentObjects[component], "object", "objects")}. `
      + (others.length < count - 1 ? `The largest ${others.length}:` : "They are:")), list);
}

function memberList(cluster) {
  const listed = columns.listed[cluster], size = columns.size[cluster];
  const members = Array.from({ length: listed }, (_, index) => memberAt(cluster, index));
  const grid = make("ol", { class: "members" });
  const more = make("button", { type: "button" });
  let shown = 0;
  const add = () => {
    const next = members.slice(shown, shown + MEMBERS_AT_ONCE);
    grid.append(...next.map((member) => make("li", {}, captioned(member, toCentre(member)))));
    shown += next.length;
    more.hidden = shown === listed;
    more.textContent = `Show ${number(Math.min(MEMBERS_AT_ONCE, listed - shown))} more`;
  };
  const again = () => { grid.replaceChildren(); shown = 0; add(); };
  more.addEventListener("click", () => {
    const next = shown;
    add();
    grid.children[next].tabIndex = -1;
    grid.children[next].focus();
  });
  const sort = make("select", { id: "member-sort" },
    make("option", { value: "time" }, "oldest first"), make("option", { value: "far" }, "furthest from the centre"),
    make("option", { value: "near" }, "closest to the centre"));
  sort.addEventListener("change", () => {
    const sign = { time: 0, far: 1, near: -1 }[sort.value];
    members.sort((x, y) => sign * (x.central - y.central) || x.index - y.index);
    again();
  });
  add();
  return make("section", { "aria-labelledby": "members-heading" },
    make("div", { class: "heading" }, make("h3", { id: "members-heading" }, "Members"), make("label", {}, "Order ", sort)),
    listed === size ? null : make("p", { class: "note" },
      `${number(listed)} of ${number(size)} are listed, evenly over time; all of them are in clusters.jsonl.`),
    grid, more);
}

function openCluster(cluster) {
  if (!(cluster >= 0 && cluster < clusterCount)) return;
  opened = cluster;
  const size = columns.size[cluster];
  byId("cluster-heading").textContent = `Cluster ${cluster}: ${plural(size, "object", "objects")}`;
  byId("cluster-body").replaceChildren(...[
    make("dl", { class: "measures large" },
      fact("id", make("code", {}, foreign(memberAt(cluster, 0).id))),
      fact("seen", ...spanOf(cluster)),
      fact("share of the objects", `${(100 * size / Math.max(1, facts.objects)).toFixed(2)} %`),
      size === 1 ? null : fact("cohesion", share(columns.cohesion[cluster])),
      size === 1 ? null : fact("weakest link", weakestOf(cluster)),
      size === 1 ? null : fact("bridges", number(columns.bridges[cluster]))),
    cameraList(cluster, 40), weakestPair(cluster), componentNote(cluster), memberList(cluster),
  ].filter((part) => part !== null));
  const at = view.order.indexOf(cluster);
  byId("previous-cluster").disabled = at <= 0;
  byId("next-cluster").disabled = at < 0 || at === view.order.length - 1;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  byId("cluster-heading").focus();
  setHash(`#cluster-${cluster}`);
}

function step(by) {
  const next = view.order[view.order.indexOf(opened) + by];
  if (next !== undefined) openCluster(next);
}

// Where a page may not change its address, it still works.
function setHash(hash) {
  try {
    history.replaceState(null, "", hash);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
}

dialog.addEventListener("close", () => {
  opened = -1;
  setHash("#clusters");
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
byId("close-cluster").addEventListener("click", () => dialog.close());
byId("previous-cluster").addEventListener("click", () => step(-1));
byId("next-cluster").addEventListener("click", () => step(1));
dialog.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
});
