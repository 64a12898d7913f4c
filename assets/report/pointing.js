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
  const all = data.all > images.length ? "of the places shown" : "of all places";
  return `${what}: ${percent(share)} ${all} are similar, in ${having} of ${plural(images.length)}`;
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
  if (state.pin) state.sort = "share";
  else if (state.sort === "share") state.sort = "run";
  refreshPin();
  arrangeCards();
  // The ranking begins at the top.
  const bar = document.querySelector(".toolbar").getBoundingClientRect();
  const top = $("cards").getBoundingClientRect().top;
  if (state.pin && !viewer.open && top < 0) scrollBy(0, top - Math.max(bar.bottom, 0) - 48);
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
      holder.querySelector(".pictures").focus({ preventScroll: true });
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
