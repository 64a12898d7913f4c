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
  state.open = index;
  viewer.dataset.index = index;
  $("viewer-title").textContent = images[index].path;
  showViewerPlace();
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

function showViewerPlace() {
  const at = state.shown.indexOf(state.open);
  $("viewer-place").textContent = at < 0 ? "" : `${at + 1} of ${state.shown.length}`;
  // Not disabled: that would take the focus away from a button in use.
  $("viewer-previous").setAttribute("aria-disabled", at <= 0);
  $("viewer-next").setAttribute("aria-disabled", at < 0 || at >= state.shown.length - 1);
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
    pane.style.setProperty("--scale", zoom.scale);
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
    // Arrows on a picture point.
    const points = canPoint && event.target.classList.contains("pictures");
    if (points && event.key.startsWith("Arrow")) return;
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
