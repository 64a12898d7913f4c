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
  offer("only", "changed", images.some((image) => image.changed !== null));
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
  const isClear = !state.pin && count === 0 && state.search === "" && state.sort === "run" &&
    state.group === "none" && state.only === "all";
  // Not disabled: that would take the focus away.
  $("clear").setAttribute("aria-disabled", isClear);
}

// In the rule itself: a variable on the root would restyle every element of the page.
const overlayRule = [...$("style").sheet.cssRules]
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
  if (state.view === "input") return "The images, as much of them as the network took.";
  const ofRuns = runs.map(ofRun);
  if (runs.length === 1 || ofRuns.every((text) => text === ofRuns[0])) {
    const sides = runs.length > 1 ? `Maps: A (${runs[0].network}), then B (${runs[1].network}). ` : "";
    return sides + ofRuns[0];
  }
  return runs.map((run, index) => `${"AB"[index]} (${run.network}): ${ofRuns[index]}`).join(" ");
}

// What the maps of a run show.
function ofRun(run) {
  if (state.component === "saliency")
    return run.saliency ? `Saliency, ${run.saliency}, in place of the map.` : "No saliency.";
  if (state.component === "all") {
    // With a target class all images have one scale.
    const whose = run.saliency?.includes(": ") ? "of all images" : "in the image";
    const line = run.saliency ? ` The line surrounds saliency above half of the largest ${whose}.` : "";
    return run.palette === "oklab"
      ? `First component from dark to light, second from blue to yellow, third from green to red.${line}`
      : `First component in red, second in green, third in blue.${line}`;
  }
  const number = ["red", "green", "blue"].indexOf(state.component);
  const share = run.variance_ratio?.[number];
  const held = Number.isFinite(share) ? ` It holds ${percent(share)} of the variance.` : "";
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
