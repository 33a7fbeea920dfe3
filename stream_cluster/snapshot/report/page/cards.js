// A page of cards.

const PER_PAGE = 48;
const view = { order: [], page: 0, descending: true };
const hasPictures = facts.extensions.length > 0;

function silhouette() {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", "M12 4a4.2 4.2 0 1 0 0 8.4A4.2 4.2 0 0 0 12 4ZM4 21c0-4.4 3.6-7 8-7s8 2.6 8 7Z");
  drawing.append(path);
  return make("span", { class: "nobody" }, drawing);
}

let probes = 0;
let beside = null;

// Whether pictures lie beside the page, as they do when the archive is unpacked; asked with one of them.
function liesBeside(path) {
  if (beside === null || beside.failed && probes < 3) {
    probes++;
    beside = { failed: false };
    beside.answer = new Promise((resolve) => {
      const image = new Image();
      const mine = beside;
      image.onload = () => resolve(true);
      image.onerror = () => { mine.failed = true; resolve(false); };
      image.src = path;
    });
  }
  return beside.answer;
}

function face(member) {
  const frame = make("span", { class: "face" });
  const show = (address) => {
    const image = make("img", { src: address, alt: "", decoding: "async" });
    image.onerror = () => image.replaceWith(silhouette());
    frame.replaceChildren(image);
  };
  frame.append(silhouette());
  if (member.picture >= 0) show(pictureAddress(member.picture));
  else if (member.path !== null) liesBeside(member.path).then((there) => { if (there) show(member.path); });
  return frame;
}

function measure(name, value, low) {
  return make("div", low ? { class: "low" } : {}, make("dt", {}, name), make("dd", {}, value));
}

function cameraList(cluster, most) {
  const begin = sourceStarts[cluster], end = sourceStarts[cluster + 1];
  const list = make("ul", { class: "cameras", "aria-label": "Cameras" });
  for (const source of columns.sources.slice(begin, Math.min(end, begin + most))) {
    list.append(make("li", {}, foreign(facts.sources[source])));
  }
  if (end - begin > most) list.append(make("li", { class: "more" }, `+${number(end - begin - most)}`));
  return begin === end ? null : list;
}

function lowNote(cluster) {
  const low = columns.low === undefined ? 0 : columns.low[cluster];
  return low === 0 ? null : make("p", { class: "mark-low" }, columns.size[cluster] === 1 ? "low quality" : `${number(low)} of low quality`);
}

// Clusters that connected components would have made one of.
const componentOf = (cluster) => columns.component === undefined ? -1 : columns.component[cluster];

function componentButton(cluster) {
  const component = componentOf(cluster);
  if (component < 0) return null;
  const others = columns.componentClusters[component] - 1;
  const whole = `Connected components would merge cluster ${cluster} with ${plural(others, "other", "others")}: show them`;
  return make("button", { type: "button", class: "component", "data-component": component, title: whole, "aria-label": whole },
    `+${number(others)} by components`);
}

function card(cluster) {
  const size = columns.size[cluster];
  const open = make("button", { type: "button", class: "open", "data-open": cluster },
    make("span", { class: "count" }, plural(size, "object", "objects")), make("span", { class: "number" }, `#${cluster}`));
  const measures = size === 1 ? null : make("dl", { class: "measures" },
    measure("cohesion", share(columns.cohesion[cluster]), false),
    measure("weakest link", weakestOf(cluster), columns.bridges[cluster] > 0),
    columns.bridges[cluster] > 0 ? measure("bridges", number(columns.bridges[cluster]), true) : null);
  const member = hasPictures ? memberAt(cluster, columns.cover[cluster]) : null;
  return make("li", { class: facts.warned.includes(cluster) ? "card warned" : "card" },
    member === null ? null : face(member),
    make("div", { class: "text" }, make("h3", {}, open),
      make("p", { class: "when" }, ...spanOf(cluster)),
      cameraList(cluster, 3), measures, lowNote(cluster), componentButton(cluster)));
}

function showPage(page, focus) {
  const pages = Math.max(1, Math.ceil(view.order.length / PER_PAGE));
  view.page = Math.min(Math.max(0, page), pages - 1);
  const begin = view.page * PER_PAGE;
  const shown = view.order.slice(begin, begin + PER_PAGE);
  byId("cards").replaceChildren(...shown.map(card));
  byId("pages").hidden = pages === 1;
  byId("page").value = view.page + 1;
  byId("page").max = pages;
  byId("of-pages").textContent = `of ${number(pages)}`;
  for (const id of ["first-page", "previous-page"]) byId(id).disabled = view.page === 0;
  for (const id of ["next-page", "last-page"]) byId(id).disabled = view.page === pages - 1;
  if (focus) {
    byId("clusters").scrollIntoView();
    byId("clusters").focus({ preventScroll: true });
  }
}

function refresh() {
  view.order = chosenClusters(byId("sort").value, view.descending);
  const all = view.order.length === clusterCount;
  byId("found").textContent = all ? plural(clusterCount, "cluster", "clusters")
    : `${number(view.order.length)} of ${plural(clusterCount, "cluster", "clusters")}`;
  showPage(0, false);
  if (view.order.length === 0) {
    byId("cards").replaceChildren(make("li", { class: "empty" },
      clusterCount === 0 ? "There are no clusters." : "No cluster meets all of these filters."));
  }
}

function showDirection() {
  const button = byId("direction");
  button.textContent = view.descending ? "Descending" : "Ascending";
  button.setAttribute("aria-pressed", String(!view.descending));
}
