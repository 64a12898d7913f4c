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
