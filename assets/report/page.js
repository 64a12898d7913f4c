// The page of a run, or of two: points at features, and orders and filters the images.

const data = JSON.parse(document.getElementById("data").textContent);
const { runs, images } = data;
const $ = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
const places = runs.map((run, index) =>
  run.places && globalThis.prismPlaces?.[index] ? new Places(run.places, globalThis.prismPlaces[index]) : null);
const canPoint = places.some(Boolean);
const truths = images.some((image) => image.truth);

const VIEWS = ["both", "input", "map", "overlay"];
const COMPONENTS = ["all", "red", "green", "blue", "saliency"];

const START = {
  view: "both", component: "all", opacity: 0.5, threshold: 0.3, search: "", sort: "run",
  group: "none", only: "all", pin: null, selection: new Set(), open: -1,
};
// `hover` is pointed at until the pointer leaves; `pin` stays. Either is a point:
// { run, image, row, column } or { run, group }.
const state = { ...START, hover: null, shown: [], shares: null };

// Texts.

const percent = (share) => {
  if (!Number.isFinite(share)) return "–";
  const rounded = (share * 100).toFixed(0);
  return share > 0 && rounded === "0" ? "<1 %" : `${rounded} %`;
};
const plural = (count) => `${count} ${count === 1 ? "image" : "images"}`;
const readable = (name) => String(name ?? "").replaceAll("_", " ");
const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1);
const folderOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const topOf = (image, run = 0) => image.classes[run]?.[0];
// Two networks may number a class differently.
const isRight = (image, run) => runs.length > 1
  ? topOf(image, run)?.name === image.truth.name : topOf(image, run)?.id === image.truth.id;
const isWrong = (image) => Boolean(image.truth) && !runs.every((_, run) => isRight(image, run));
const isChanged = (image) => runs.length > 1 && topOf(image, 0)?.name !== topOf(image, 1)?.name;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Points and their features.

const pointInUse = () => state.hover ?? state.pin;
const samePoint = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// The feature of a point in a run: of the same place of the image in each run, of a group only
// in its own.
function featureOf(point, run) {
  if (!point || !places[run]) return null;
  if (point.group !== undefined)
    return point.run === run ? runs[run].key.groups[point.group].feature.map((part) => 127 * part) : null;
  const [own, other] = [places[point.run], places[run]];
  const at = (index, from, to) => Math.floor((index + 0.5) / from * to);
  return other.at(point.image, at(point.row, own.h, other.h), at(point.column, own.w, other.w));
}

const sharesOf = (point) => point && runs.map((_, run) => {
  const feature = featureOf(point, run);
  return feature && images.map((_, image) => places[run].shareOf(image, feature, state.threshold));
});

function describePoint(point, shares) {
  const which = shares[point.run];
  const share = which.reduce((sum, of) => sum + of.share, 0) / which.length;
  const having = which.filter((of) => of.share > 0).length;
  const what = point.group !== undefined
    ? readable(runs[point.run].key.groups[point.group].name)
    : `row ${point.row + 1}, column ${point.column + 1} of ${nameOf(images[point.image].path)}`;
  return `${what}: ${percent(share)} of all places are similar, in ${having} of ${plural(images.length)}`;
}

// Pictures.

// Cards and the viewer, as far as they are on the screen.
const visible = new Set();

// What lies on the pictures of a card or of the viewer, `holder`.
function drawPoint(holder) {
  const image = Number(holder.dataset.index);
  const point = pointInUse();
  for (const pane of holder.querySelectorAll(".pane")) {
    const run = Number(pane.dataset.run ?? point?.run ?? 0);
    const feature = featureOf(point, run);
    const canvas = pane.querySelector("canvas");
    canvas.hidden = !feature;
    if (feature) paintCover(canvas, places[run], image, feature, state.threshold);
    const cell = pane.querySelector(".cell");
    cell.hidden = point?.image !== image || !places[point.run];
    if (cell.hidden) continue;
    const { h, w } = places[point.run];
    Object.assign(cell.style, {
      left: `${100 * point.column / w}%`, top: `${100 * point.row / h}%`,
      width: `${100 / w}%`, height: `${100 / h}%`,
    });
  }
}

// The input lies under the map only if it is to be seen through it.
function drawUnder(holder) {
  const input = holder.querySelector(".pane.input .picture");
  for (const zoomed of holder.querySelectorAll(".pane.map .zoom"))
    zoomed.style.backgroundImage = state.view === "overlay" ? `url("${input.src}")` : "";
}

function showMaps(holder) {
  for (const picture of holder.querySelectorAll(".pane.map .picture")) {
    picture.dataset.map ??= picture.getAttribute("src");
    const url = state.component === "saliency" ? picture.dataset.saliency : picture.dataset.map;
    picture.classList.toggle("lacking", !url);
    if (url && picture.getAttribute("src") !== url) picture.src = url;
  }
}

function drawHolder(holder) {
  showMaps(holder);
  drawUnder(holder);
  drawPoint(holder);
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      visible.add(target);
      drawHolder(target);
    } else {
      visible.delete(target);
    }
  }
}, { rootMargin: "200px" });

function prepareCards() {
  for (const card of cards) {
    const pictures = card.querySelector(".pictures");
    for (const pane of pictures.querySelectorAll(".pane")) {
      const canvas = element("canvas");
      canvas.hidden = true;
      const cell = element("span", undefined, "cell");
      cell.hidden = true;
      pane.querySelector(".zoom").append(canvas, cell);
    }
    if (canPoint) {
      pictures.tabIndex = 0;
      pictures.setAttribute("role", "application");
      pictures.setAttribute("aria-roledescription", "picture to point at");
      pictures.setAttribute("aria-label",
        `${images[card.dataset.index].path}: arrow keys point at a place, Enter keeps it, Escape lets go`);
    }
    watcher.observe(card);
  }
  document.body.classList.toggle("can-point", canPoint);
}

// Pointing.

let pending = 0;
function point(next) {
  if (samePoint(next, state.hover)) return;
  state.hover = next;
  if (!pending)
    pending = requestAnimationFrame(() => {
      pending = 0;
      drawPoints();
    });
}

function drawPoints() {
  for (const holder of visible) drawPoint(holder);
  if ($("viewer").open) drawPoint(viewer);
  const shown = pointInUse();
  const shares = state.hover ? sharesOf(state.hover) : state.shares;
  $("pointed").classList.toggle("hint", !shown);
  $("pointed").textContent = shown && shares?.[shown.run] ? describePoint(shown, shares)
    : canPoint ? "Point at a place in a picture, or at a group: similar places of all images light up. A click keeps it and ranks the images." : "";
  for (const button of document.querySelectorAll("[data-group]")) {
    const own = { run: Number(button.dataset.run), group: Number(button.dataset.group) };
    button.setAttribute("aria-pressed", samePoint(own, state.pin));
  }
}

function pin(next) {
  state.pin = samePoint(next, state.pin) ? null : next;
  state.hover = null;
  if (state.pin && state.sort === "run") state.sort = "share";
  if (!state.pin && state.sort === "share") state.sort = "run";
  refreshPin();
  arrangeCards();
}

function refreshPin() {
  state.shares = sharesOf(state.pin);
  for (const card of cards) {
    const text = shareText(Number(card.dataset.index));
    const note = card.querySelector(".share-of");
    note.hidden = !text;
    note.textContent = text;
  }
  drawPoints();
  showViewerShare();
}

function shareText(image) {
  if (!state.shares) return "";
  const parts = state.shares.map((of, run) => of && {
    of: of[image], run: runs.length > 1 ? `${"AB"[run]}: ` : "",
  }).filter(Boolean);
  return parts.map(({ of, run }) =>
    `${run}${percent(of.share)} of its places are similar (highest ${of.highest.toFixed(2)})`).join("; ");
}

// The place under the pointer.
function placeUnder(event) {
  const pane = event.target.closest?.(".pane");
  const holder = pane?.closest("[data-index]");
  if (!holder) return null;
  const run = Number(pane.dataset.run ?? state.pin?.run ?? 0);
  if (!places[run]) return null;
  const { h, w } = places[run];
  const box = pane.querySelector(".picture").getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top) / box.height * h);
  const column = Math.floor((event.clientX - box.left) / box.width * w);
  if (row < 0 || row >= h || column < 0 || column >= w) return null;
  return { run, image: Number(holder.dataset.index), row, column };
}

function listenTo(place) {
  place.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch" && !panning) point(placeUnder(event));
  });
  place.addEventListener("pointerleave", () => point(null));
  place.addEventListener("click", (event) => {
    if (dragged) return;
    const opener = event.target.closest(".open");
    if (opener) return openViewer(Number(opener.closest("[data-index]").dataset.index));
    const found = placeUnder(event);
    if (found) pin(found);
  });
  place.addEventListener("dblclick", (event) => {
    const card = event.target.closest(".card");
    if (card && event.target.closest(".pane")) openViewer(Number(card.dataset.index));
  });
  place.addEventListener("keydown", (event) => {
    const holder = event.target.closest("[data-index]");
    if (!event.target.classList.contains("pictures") || !holder || event.altKey || event.ctrlKey || event.metaKey) return;
    const image = Number(holder.dataset.index);
    const run = state.hover?.run ?? state.pin?.run ?? places.findIndex(Boolean);
    if (!places[run]) return;
    const { h, w } = places[run];
    const known = [state.hover, state.pin].find((known) => known?.image === image && known.run === run);
    const from = known ?? { run, image, row: Math.floor(h / 2), column: Math.floor(w / 2) };
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (by) {
      const within = (value, count) => Math.min(count - 1, Math.max(0, value));
      // The first key shows where the point is.
      const moved = known ? by : [0, 0];
      point({ ...from, row: within(from.row + moved[0], h), column: within(from.column + moved[1], w) });
    } else if (event.key === "Enter") {
      pin(state.hover ?? from);
      holder.querySelector(".pictures").focus({ preventScroll: true });
    } else if (event.key === "Escape" && pointInUse()) {
      if (state.hover) point(null);
      else pin(state.pin);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  place.addEventListener("focusout", (event) => {
    if (event.target.classList?.contains("pictures")) point(null);
  });
}

// Order, groups and filters.

function wanted(image) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [image.path, image.truth?.name, ...image.classes.flat().map(({ name }) => `${name} ${readable(name)}`)]
    .join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

const KEPT = {
  all: () => true,
  wrong: isWrong,
  changed: isChanged,
  selected: (_, index) => state.selection.has(index),
};

const shareAt = (index) => (state.shares ?? []).filter(Boolean)
  .reduce((sum, of) => sum + of[index].share + of[index].highest * 1e-3, 0);
const byName = (a, b) => images[a].path.localeCompare(images[b].path, "en", { numeric: true });
const sureOf = (index) => topOf(images[index])?.probability ?? 0;
const ORDERS = {
  run: (a, b) => a - b,
  name: byName,
  sure: (a, b) => sureOf(b) - sureOf(a),
  unsure: (a, b) => sureOf(a) - sureOf(b),
  share: (a, b) => shareAt(b) - shareAt(a),
};

const GROUPS = {
  none: () => "",
  class: (image) => readable(topOf(image)?.name ?? "no class"),
  truth: (image) => readable(image.truth?.name ?? "not known"),
  folder: (image) => folderOf(image.path) || "no folder",
};

function arrangeCards() {
  const kept = images.map((_, index) => index)
    .filter((index) => KEPT[state.only](images[index], index) && wanted(images[index]));
  kept.sort((a, b) => ORDERS[state.sort](a, b) || a - b);
  const groups = new Map();
  for (const index of kept) {
    const name = GROUPS[state.group](images[index]);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(index);
  }
  const list = document.createDocumentFragment();
  const names = [...groups.keys()];
  // A feature's order holds for the groups as well: the group of the first image comes first.
  if (state.sort === "run" || state.sort === "name")
    names.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  for (const name of names) {
    const members = groups.get(name);
    if (state.group !== "none") list.append(element("li", `${name} · ${plural(members.length)}`, "heading"));
    for (const index of members) list.append(cards[index]);
  }
  state.shown = names.flatMap((name) => groups.get(name));
  $("cards").replaceChildren(list);
  const filtered = kept.length < images.length;
  $("shown").textContent = filtered ? `${kept.length} of ${plural(images.length)}` : plural(kept.length);
  if (data.all > images.length) $("shown").textContent += `, of ${data.all} in the run`;
  $("empty").hidden = kept.length > 0;
  document.body.classList.toggle("filtered", filtered);
  showChoices();
  drawChart();
  remember();
}

// Selection.

function select(indices, add) {
  state.selection = new Set(add ? [...state.selection, ...indices] : indices);
  afterSelecting();
}

function afterSelecting() {
  for (const card of cards)
    card.classList.toggle("selected", state.selection.has(Number(card.dataset.index)));
  if (state.only === "selected" && state.selection.size === 0) state.only = "all";
  arrangeCards();
}

// The paths of the selection; without one, of what is shown.
const chosen = () => {
  const all = state.selection.size > 0 ? state.shown.filter((index) => state.selection.has(index)) : state.shown;
  return all.map((index) => images[index].path).join("\n") + "\n";
};

async function copyPaths() {
  const text = chosen();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages of a file may not use the clipboard in all browsers.
    const area = element("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("copy").textContent = "Copied";
  setTimeout(() => showChoices(), 1500);
}

function savePaths() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([chosen()], { type: "text/plain" }));
  link.download = "images.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The cluster map.

const hasChart = images.some((image) => image.at);
const marks = [];

function buildChart() {
  $("chart-toggle").hidden = !hasChart;
  if (!hasChart) return;
  images.forEach((image, index) => {
    if (!image.at) return;
    const [x, y, side] = image.at;
    const mark = element("button", undefined, "mark");
    const picture = element("img");
    picture.alt = "";
    picture.loading = "lazy";
    picture.src = cards[index].querySelector(".pane.input .picture").getAttribute("src");
    mark.append(picture);
    mark.type = "button";
    mark.dataset.index = index;
    mark.title = `${nameOf(image.path)}: ${readable(topOf(image)?.name)}`;
    mark.setAttribute("aria-label", `${mark.title}; Space selects, Enter opens`);
    Object.assign(mark.style, {
      left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * side}%`, height: `${100 * side}%`,
    });
    marks[index] = mark;
    $("field").append(mark);
  });
  $("chart-toggle").addEventListener("click", () => showChart($("chart").hidden));
  const field = $("field");
  const toField = (event) => {
    const box = field.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let path = null;
  field.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    path = [toField(event)];
    field.setPointerCapture(event.pointerId);
  });
  field.addEventListener("pointermove", (event) => {
    const mark = document.elementFromPoint(event.clientX, event.clientY)?.closest(".mark");
    highlight(mark ? Number(mark.dataset.index) : -1);
    if (!path) return;
    path.push(toField(event));
    $("lasso").setAttribute("points", path.map(([x, y]) => `${1000 * x},${1000 * y}`).join(" "));
  });
  const end = (event) => {
    const drawn = path;
    path = null;
    $("lasso").setAttribute("points", "");
    if (!drawn) return;
    const [[left, top], [right, bottom]] = [Math.min, Math.max].map((most) =>
      [0, 1].map((axis) => most(...drawn.map((at) => at[axis]))));
    if (right - left < 0.01 && bottom - top < 0.01) {
      const mark = document.elementFromPoint(event.clientX, event.clientY)?.closest(".mark");
      if (mark) openViewer(Number(mark.dataset.index));
      return;
    }
    const inside = state.shown.filter((index) => {
      const at = images[index].at;
      return at && isInside([at[0] + at[2] / 2, at[1] + at[2] / 2], drawn);
    });
    select(inside, event.shiftKey);
  };
  field.addEventListener("pointerup", end);
  field.addEventListener("pointercancel", () => { path = null; });
  field.addEventListener("pointerleave", () => highlight(-1));
  field.addEventListener("keydown", (event) => {
    const mark = event.target.closest(".mark");
    if (!mark) return;
    const index = Number(mark.dataset.index);
    if (event.key === "Enter") openViewer(index);
    else if (event.key === " ") {
      const next = new Set(state.selection);
      if (!next.delete(index)) next.add(index);
      select([...next], false);
    } else return;
    event.preventDefault();
  });
  $("cards").addEventListener("pointerover", (event) => {
    const card = event.target.closest(".card");
    highlight(card ? Number(card.dataset.index) : -1);
  });
}

function showChart(on) {
  $("chart").hidden = !on;
  $("chart-toggle").setAttribute("aria-expanded", on);
  remember();
}

// By the even-odd rule.
function isInside([x, y], path) {
  let inside = false;
  for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
    const [ax, ay] = path[a];
    const [bx, by] = path[b];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

let highlighted = -1;
function highlight(index) {
  if (index === highlighted) return;
  for (const [at, on] of [[highlighted, false], [index, true]]) {
    cards[at]?.classList.toggle("near", on);
    marks[at]?.classList.toggle("near", on);
  }
  highlighted = index;
}

function drawChart() {
  if (!hasChart) return;
  const shown = new Set(state.shown);
  marks.forEach((mark, index) => {
    mark.classList.toggle("faint", !shown.has(index));
    mark.classList.toggle("selected", state.selection.has(index));
  });
}

// Controls: above the gallery and in the viewer, with one state.

const hasSaliency = Boolean(document.querySelector("[data-saliency]"));

function buildControls(place, id) {
  const controls = $("controls-template").content.cloneNode(true);
  const slider = controls.querySelector("input");
  slider.id = id;
  controls.querySelector("label").htmlFor = id;
  controls.querySelector("[data-component=saliency]").hidden = !hasSaliency;
  // Red, green and blue are the components only in the palette of these.
  const isRgb = runs.every((run) => run.palette === "rgb");
  for (const component of isRgb ? [] : ["red", "green", "blue"])
    controls.querySelector(`[data-component=${component}]`).hidden = true;
  for (const button of controls.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => change({ view: button.dataset.view }));
  for (const button of controls.querySelectorAll("[data-component]"))
    button.addEventListener("click", () => {
      // Asked for a map: show one.
      const view = state.view === "input" ? "both" : state.view;
      change({ component: button.dataset.component, view });
    });
  // Only the overlay has an opacity: who moves the slider wants to see it.
  slider.addEventListener("input", () => change({ opacity: Number(slider.value), view: "overlay" }));
  place.append(controls);
}

function listenToChoices() {
  $("threshold").addEventListener("input", () => {
    state.threshold = Number($("threshold").value);
    refreshPin();
    if (state.sort === "share") arrangeCards();
    else { showChoices(); remember(); }
  });
  $("search").addEventListener("input", () => { state.search = $("search").value; arrangeCards(); });
  for (const name of ["sort", "group", "only"])
    $(name).addEventListener("change", () => { state[name] = $(name).value; arrangeCards(); });
  $("copy").addEventListener("click", copyPaths);
  $("save").addEventListener("click", savePaths);
  $("clear").addEventListener("click", () => {
    state.pin = null;
    Object.assign(state, { search: "", sort: "run", group: "none", only: "all", selection: new Set() });
    refreshPin();
    afterSelecting();
  });
  const offer = (select, value, on) => { $(select).querySelector(`[value=${value}]`).hidden = !on; };
  offer("group", "truth", truths);
  offer("only", "wrong", truths);
  offer("only", "changed", runs.length > 1);
  offer("sort", "share", canPoint);
  $("threshold").closest(".control").hidden = !canPoint;
  document.querySelector(".toolbar").hidden = false;
}

// The controls show the state.
function showChoices() {
  $("threshold").value = state.threshold;
  $("threshold").closest(".control").querySelector("output").textContent = state.threshold.toFixed(2);
  if ($("search").value !== state.search) $("search").value = state.search;
  for (const name of ["sort", "group", "only"]) $(name).value = state[name];
  $("sort").querySelector("[value=share]").disabled = !state.pin;
  $("only").querySelector("[value=selected]").disabled = state.selection.size === 0;
  const count = state.selection.size;
  $("copy").textContent = count > 0 ? `Copy ${count} selected` : "Copy paths";
  $("save").textContent = count > 0 ? `Save ${count} selected` : "Save paths";
  $("clear").disabled = !state.pin && count === 0 && state.search === "" && state.sort === "run" &&
    state.group === "none" && state.only === "all";
}

// In the rule itself: a variable on the root would restyle every element of the page.
const overlayRule = [...document.styleSheets[0].cssRules]
  .find((rule) => rule.selectorText === ".view-overlay .map .picture");

function change(next) {
  const anchor = next.view !== undefined && next.view !== state.view ? topCard() : null;
  Object.assign(state, next);
  overlayRule.style.opacity = state.opacity;
  for (const view of VIEWS) document.body.classList.toggle(`view-${view}`, view === state.view);
  for (const component of COMPONENTS)
    document.body.classList.toggle(`component-${component}`, component === state.component);
  for (const button of document.querySelectorAll("button[data-view]"))
    button.setAttribute("aria-pressed", button.dataset.view === state.view);
  for (const button of document.querySelectorAll("button[data-component]"))
    button.setAttribute("aria-pressed", button.dataset.component === state.component);
  for (const control of document.querySelectorAll(".opacity")) {
    const text = `${Math.round(state.opacity * 100)} %`;
    const slider = control.querySelector("input");
    slider.value = state.opacity;
    slider.setAttribute("aria-valuetext", text);
    control.querySelector("output").textContent = text;
  }
  for (const holder of visible) drawHolder(holder);
  if (viewer.open) drawHolder(viewer);
  $("legend").textContent = legend();
  // The cards get another size: keep the one that was being looked at in its place.
  if (anchor) scrollBy(0, anchor.card.getBoundingClientRect().top - anchor.top);
  remember();
}

function topCard() {
  const line = Math.max(document.querySelector(".toolbar").getBoundingClientRect().bottom, 0) + 24;
  const list = $("cards").getBoundingClientRect();
  if (list.top >= line) return null;
  const card = document.elementFromPoint(list.left + 40, line)?.closest(".card")
    ?? document.elementFromPoint(list.left + 40, line + 48)?.closest(".card");
  return card ? { card, top: card.getBoundingClientRect().top } : null;
}

function legend() {
  const [run] = runs;
  const sides = runs.length > 1 ? `Maps: A (${runs[0].network}), then B (${runs[1].network}). ` : "";
  if (state.view === "input") return "The images, as much of them as the network took.";
  if (state.component === "saliency") return `Saliency, ${run.saliency}, in place of the map.`;
  if (state.component === "all") {
    const line = hasSaliency ? " The line surrounds saliency above half of the largest." : "";
    return run.palette === "oklab"
      ? `First component from dark to light, second from blue to yellow, third from green to red.${line}`
      : `${sides}First component in red, second in green, third in blue.${line}`;
  }
  const number = ["red", "green", "blue"].indexOf(state.component);
  const share = run.variance_ratio?.[number];
  const held = Number.isFinite(share) && runs.length === 1 ? ` It holds ${percent(share)} of the variance.` : "";
  return `${["First", "Second", "Third"][number]} component alone, dark for low and bright for high.${held}`;
}

// The key: groups of similar places.

function buildKey() {
  const keyed = runs.map((run, index) => ({ run, index })).filter(({ run }) => run.key);
  $("key").hidden = keyed.length === 0;
  for (const { run, index } of keyed) {
    if (runs.length > 1) $("groups").append(element("h3", `${"AB"[index]}: ${run.network}`));
    const list = element("ul");
    list.setAttribute("role", "list");
    run.key.groups.forEach((group, number) => {
      const item = element("li");
      const button = element("button");
      button.type = "button";
      button.disabled = !places[index] || !group.feature;
      Object.assign(button.dataset, { run: index, group: number });
      const swatch = element("span", undefined, "swatch");
      if (group.left_out) swatch.classList.add("left-out");
      else swatch.style.backgroundColor = group.colour;
      const words = element("span");
      const further = [...group.further, ...(group.left_out ? ["left out"] : [])];
      words.append(element("strong", readable(group.name)), element("span", further.map(readable).join(", "), "further"));
      button.append(swatch, words);
      const own = { run: index, group: number };
      button.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") point(own); });
      button.addEventListener("pointerleave", () => point(null));
      button.addEventListener("focus", () => { if (button.matches(":focus-visible")) point(own); });
      button.addEventListener("blur", () => point(null));
      button.addEventListener("click", () => pin(own));
      item.append(button);
      list.append(item);
    });
    $("groups").append(list);
  }
}

// The viewer: one image at full size.

const viewer = $("viewer");
const zoom = { scale: 1, x: 0, y: 0 };
let panning = null;
let dragged = false;

function openViewer(index) {
  showInViewer(index);
  if (!viewer.open) viewer.showModal();
  fitStage();
  drawHolder(viewer);
}

function showInViewer(index) {
  const card = cards[index];
  const at = state.shown.indexOf(index);
  state.open = index;
  viewer.dataset.index = index;
  $("viewer-title").textContent = images[index].path;
  $("viewer-place").textContent = at < 0 ? "" : `${at + 1} of ${state.shown.length}`;
  // Not disabled: that would take the focus away from a button in use.
  $("viewer-previous").setAttribute("aria-disabled", at <= 0);
  $("viewer-next").setAttribute("aria-disabled", at < 0 || at >= state.shown.length - 1);
  const pictures = card.querySelector(".pictures").cloneNode(true);
  for (const picture of pictures.querySelectorAll(".picture")) picture.loading = "eager";
  viewer.querySelector(".stage").replaceChildren(pictures);
  $("viewer-classes").replaceChildren(
    ...[...card.querySelectorAll(".truth, .classes-title, .classes")].map((part) => part.cloneNode(true)));
  setZoom(1, 0, 0);
  fitStage();
  drawHolder(viewer);
  showViewerShare();
  remember();
}

function showViewerShare() {
  $("viewer-share").textContent = state.open >= 0 ? shareText(state.open) : "";
}

// The pictures side by side or stacked, whichever leaves them larger.
function fitStage() {
  const stage = viewer.querySelector(".stage");
  const pictures = stage.firstElementChild;
  if (!pictures || stage.clientHeight === 0) return;
  const ratio = Number(getComputedStyle(pictures).getPropertyValue("--ratio")) || 1;
  const shownPanes = [...pictures.children].filter((pane) => pane.offsetParent !== null).length || 1;
  const gap = 8;
  const fits = (columns, rows) => Math.min(
    (stage.clientWidth - gap * (columns - 1)) / columns,
    (stage.clientHeight - gap * (rows - 1)) / rows * ratio);
  const stacked = fits(1, shownPanes) > fits(shownPanes, 1);
  const width = Math.max(40, stacked ? fits(1, shownPanes) : fits(shownPanes, 1));
  pictures.style.gridTemplateColumns = `repeat(${stacked ? 1 : shownPanes}, ${Math.floor(width)}px)`;
}

function setZoom(scale, x, y) {
  zoom.scale = Math.min(16, Math.max(1, scale));
  const most = (side) => Math.max(0, side * (zoom.scale - 1) / 2);
  const limit = (value, side) => Math.min(most(side), Math.max(-most(side), value));
  const shown = [...viewer.querySelectorAll(".pane")].find((pane) => pane.clientWidth > 0);
  zoom.x = shown ? limit(x, shown.clientWidth) : 0;
  zoom.y = shown ? limit(y, shown.clientHeight) : 0;
  for (const pane of viewer.querySelectorAll(".pane"))
    pane.style.setProperty("--zoom", `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`);
  viewer.classList.toggle("zoomed", zoom.scale > 1);
}

// Keeps what is under (x, y), measured from the middle of a picture, where it is.
function zoomBy(factor, x = 0, y = 0) {
  const scale = Math.min(16, Math.max(1, zoom.scale * factor));
  const by = scale / zoom.scale;
  setZoom(scale, x - (x - zoom.x) * by, y - (y - zoom.y) * by);
}

function step(by) {
  const next = state.shown[state.shown.indexOf(state.open) + by];
  if (next !== undefined) showInViewer(next);
}

// The focus goes to the image last seen, which is where the reader is.
function leave() {
  if (viewer.open) return;
  const card = cards[state.open];
  state.open = -1;
  card?.querySelector(".open").focus();
  remember();
}

function buildViewer() {
  const stage = viewer.querySelector(".stage");
  new ResizeObserver(() => { fitStage(); setZoom(zoom.scale, zoom.x, zoom.y); }).observe(stage);
  $("viewer-close").addEventListener("click", () => { viewer.close(); leave(); });
  $("viewer-previous").addEventListener("click", () => step(-1));
  $("viewer-next").addEventListener("click", () => step(1));
  for (const button of viewer.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () =>
      Number(button.dataset.zoom) === 0 ? setZoom(1, 0, 0) : zoomBy(Number(button.dataset.zoom)));
  viewer.addEventListener("keydown", (event) => {
    if (event.target.type === "range" || event.altKey || event.ctrlKey || event.metaKey) return;
    const act = {
      PageUp: () => step(-1), PageDown: () => step(1), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => setZoom(1, 0, 0),
    }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
  });
  // Escape closes without a click; after a click this has been done already.
  viewer.addEventListener("close", leave);

  stage.addEventListener("wheel", (event) => {
    const pane = event.target.closest(".pane");
    if (!pane) return;
    event.preventDefault();
    const box = pane.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY * 0.002), event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
  }, { passive: false });
  // One pointer pans, two pinch.
  const touching = new Map();
  stage.addEventListener("pointerdown", (event) => {
    touching.set(event.pointerId, event);
    dragged = false;
    panning = zoom.scale > 1 ? { x: event.clientX, y: event.clientY, from: { ...zoom } } : null;
  });
  addEventListener("pointermove", (event) => {
    if (!touching.has(event.pointerId)) return;
    const before = [...touching.values()];
    touching.set(event.pointerId, event);
    if (before.length === 2) {
      const apart = (two) => Math.hypot(two[0].clientX - two[1].clientX, two[0].clientY - two[1].clientY);
      zoomBy(apart([...touching.values()]) / Math.max(1, apart(before)));
      dragged = true;
    } else if (panning) {
      const [x, y] = [event.clientX - panning.x, event.clientY - panning.y];
      if (Math.hypot(x, y) > 4) dragged = true;
      if (dragged) setZoom(panning.from.scale, panning.from.x + x, panning.from.y + y);
    }
  });
  const lift = (event) => {
    touching.delete(event.pointerId);
    panning = null;
    // The click that follows is no click on a place.
    setTimeout(() => { dragged = false; });
  };
  addEventListener("pointerup", lift);
  addEventListener("pointercancel", lift);
}

// The address holds the view, so that it can be sent.

const RUNS_OF = (set) => {
  const sorted = [...set].sort((a, b) => a - b);
  const parts = [];
  for (const value of sorted) {
    const last = parts.at(-1);
    if (last && last[1] === value - 1) last[1] = value;
    else parts.push([value, value]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
};

const TO_TEXT = {
  pin: (pin) => pin && (pin.group !== undefined ? `g${pin.run}.${pin.group}` : `${pin.run}.${pin.image}.${pin.row}.${pin.column}`),
  selection: (set) => (set.size > 0 ? RUNS_OF(set) : null),
};

function remember() {
  if (!isReady) return;
  const parts = new URLSearchParams();
  for (const [name, start] of Object.entries(START)) {
    const text = TO_TEXT[name] ? TO_TEXT[name](state[name]) : state[name] === start ? null : String(state[name]);
    if (text) parts.set(name, text);
  }
  if (!$("chart").hidden) parts.set("chart", "1");
  const hash = parts.size > 0 ? `#${parts}` : "";
  if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
}

// What an address says, as far as it fits this page.
function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const next = { ...START, selection: new Set() };
  const oneOf = (name, values) => { if (values.includes(parts.get(name))) next[name] = parts.get(name); };
  oneOf("view", VIEWS);
  oneOf("component", COMPONENTS);
  oneOf("sort", Object.keys(ORDERS));
  oneOf("group", Object.keys(GROUPS));
  oneOf("only", Object.keys(KEPT));
  const number = (name, least, most) => {
    const value = Number(parts.get(name));
    if (parts.has(name) && value >= least && value <= most) next[name] = value;
  };
  number("opacity", 0, 1);
  number("threshold", 0.1, 0.95);
  number("open", 0, images.length - 1);
  next.search = parts.get("search") ?? "";
  next.pin = pinOf(parts.get("pin") ?? "");
  for (const part of (parts.get("selection") ?? "").split(",").filter(Boolean)) {
    const [from, to] = part.split("-").map(Number);
    for (let index = from; index <= (to ?? from) && index < images.length; index++)
      if (index >= 0) next.selection.add(index);
  }
  if (!next.pin && next.sort === "share") next.sort = "run";
  const { open } = next;
  Object.assign(state, next, { hover: null, open: -1 });
  change({});
  refreshPin();
  afterSelecting();
  showChart(hasChart && parts.has("chart"));
  if (open >= 0) openViewer(open);
  else if (viewer.open) { viewer.close(); leave(); }
}

function pinOf(text) {
  const group = /^g(\d+)\.(\d+)$/.exec(text)?.slice(1).map(Number);
  if (group) return places[group[0]] && runs[group[0]].key?.groups[group[1]]?.feature ? { run: group[0], group: group[1] } : null;
  const [run, image, row, column] = /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)?.slice(1).map(Number) ?? [];
  const of = places[run];
  return of && image < images.length && row < of.h && column < of.w ? { run, image, row, column } : null;
}

// Paper.

function preparePrint() {
  addEventListener("beforeprint", () => {
    // Pictures further down may not have been fetched yet.
    for (const index of state.shown)
      for (const picture of cards[index].querySelectorAll("img")) picture.loading = "eager";
  });
}

let isReady = false;

if (globalThis.prismMissing) {
  $("notes").hidden = false;
  $("notes").textContent = `The folder ${globalThis.prismMissing} is missing beside this page: its pictures and features are there. Copy it along.`;
}
// On a phone the pictures come first; elsewhere the options have no lid.
const phone = matchMedia("(max-width: 48rem)");
const lid = () => { $("options").open = !phone.matches; };
phone.addEventListener("change", lid);
lid();
document.body.classList.toggle("few", images.length <= 2);
document.body.classList.toggle("two-runs", runs.length > 1);
prepareCards();
buildControls($("controls"), "opacity");
buildControls($("viewer-controls"), "viewer-opacity");
buildViewer();
buildKey();
buildChart();
listenToChoices();
listenTo($("cards"));
listenTo(viewer);
preparePrint();
recall();
isReady = true;
addEventListener("hashchange", recall);
