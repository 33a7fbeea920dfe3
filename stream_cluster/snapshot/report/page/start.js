// Controls, colours, the curve; then the first cards, after what stands above them has been painted.

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
  }
}

// A browser may keep no storage for files.
function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem("stream-cluster-theme", value);
    return localStorage.getItem("stream-cluster-theme");
  } catch {
    return null;
  }
}

for (const button of document.querySelectorAll("[data-theme-choice]")) {
  button.addEventListener("click", () => {
    setTheme(button.dataset.themeChoice);
    stored(button.dataset.themeChoice);
  });
}
if (["light", "dark"].includes(stored())) setTheme(stored());
byId("print").addEventListener("click", () => window.print());

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-open], [data-component]");
  if (button === null) return;
  if (button.dataset.component === undefined) openCluster(Number(button.dataset.open));
  else showComponent(Number(button.dataset.component));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !dialog.open && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    byId("search").focus();
  }
});

function showComponent(component) {
  if (dialog.open) dialog.close();
  // A button of the form is named reset, too, and hides its method.
  HTMLFormElement.prototype.reset.call(form);
  byId("search").value = `component ${component}`;
  refresh();
  byId("clusters").scrollIntoView();
  byId("clusters").focus({ preventScroll: true });
}

let waiting = 0;
function refreshSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 150);
}

const form = byId("controls");
form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
form.addEventListener("input", refreshSoon);
form.addEventListener("reset", () => {
  view.descending = true;
  setTimeout(() => { showDirection(); refresh(); }, 0);
});
byId("sort").addEventListener("change", () => {
  view.descending = descending[byId("sort").value];
  showDirection();
});
byId("direction").addEventListener("click", () => {
  view.descending = !view.descending;
  showDirection();
  refresh();
});
byId("more").addEventListener("click", () => {
  const open = byId("ranges").hidden;
  byId("ranges").hidden = !open;
  byId("more").setAttribute("aria-expanded", String(open));
});
byId("first-page").addEventListener("click", () => showPage(0, true));
byId("previous-page").addEventListener("click", () => showPage(view.page - 1, true));
byId("next-page").addEventListener("click", () => showPage(view.page + 1, true));
byId("last-page").addEventListener("click", () => showPage(Infinity, true));
byId("page").addEventListener("change", () => showPage(Number(byId("page").value) - 1, true));

function showSources() {
  const select = byId("source");
  facts.sources.forEach((name, index) => select.append(make("option", { value: index }, visible(name).slice(0, 60))));
  select.closest("label").hidden = facts.sources.length === 0;
}

function showWhatThereIs() {
  for (const [name, column] of [["component", columns.component], ["low", columns.low]]) {
    if (column === undefined) continue;
    const text = { component: "component size", low: "low quality" }[name];
    byId("sort").append(make("option", { value: name }, text));
    byId(name === "component" ? "merged" : "low").closest("label").hidden = false;
  }
}

function showLeftOut() {
  const parts = [];
  if (clusterCount < facts.clusters) {
    parts.push(`The page has room for the ${number(clusterCount)} largest of ${plural(facts.clusters, "cluster", "clusters")}.`);
  }
  const listed = memberStarts[clusterCount];
  if (listed < facts.objects) {
    parts.push(`It lists ${number(listed)} of ${plural(facts.objects, "object", "objects")}, and searches those; clusters.jsonl has them all.`);
  }
  byId("left-out").textContent = parts.join(" ");
  byId("left-out").hidden = parts.length === 0;
}

function startCurve() {
  const curve = readBlock("curve");
  if (curve === null) return;
  const drawing = byId("curve"), slider = byId("curve-slider"), line = byId("curve-at");
  const left = Number(drawing.dataset.left), right = Number(drawing.dataset.right);
  const last = curve.thresholds.length - 1;
  const low = curve.thresholds[0], high = Math.max(curve.thresholds[last], low + 1e-6);
  const nearest = (threshold) => {
    let index = 0;
    while (index < last && curve.thresholds[index + 1] <= threshold + 1e-9) index++;
    return index;
  };
  const read = (index) => {
    const x = left + (right - left) * (curve.thresholds[index] - low) / (high - low);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.setAttribute("visibility", "visible");
    slider.value = index;
    const largest = (100 * curve.largest[index] / Math.max(1, facts.objects)).toFixed(1);
    const text = `At ${curve.thresholds[index].toFixed(3)}: ${facts.average ? plural(curve.clusters[index], "component", "components") : plural(curve.clusters[index], "cluster", "clusters")}, `
      + `${number(curve.singletons[index])} of a single object; the largest has ${largest} % of the objects.`;
    byId("curve-reading").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  slider.max = last;
  slider.addEventListener("input", () => read(Number(slider.value)));
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = (event.clientX - box.left) * drawing.viewBox.baseVal.width / box.width;
    read(nearest(low + (high - low) * Math.min(1, Math.max(0, (x - left) / (right - left)))));
  });
  read(nearest(facts.threshold));
}

function openNamed() {
  const named = /^#cluster-(\d+)$/.exec(location.hash);
  if (named !== null) openCluster(Number(named[1]));
}

function start() {
  showSources();
  showWhatThereIs();
  showLeftOut();
  showDirection();
  refresh();
  startCurve();
  openNamed();
  window.addEventListener("hashchange", openNamed);
  document.documentElement.dataset.ready = "true";
  performance.mark("cards");
}

requestAnimationFrame(() => setTimeout(start, 0));
