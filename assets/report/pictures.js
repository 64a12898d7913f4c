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
