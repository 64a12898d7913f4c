"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const images = data.images ?? [];
  const ratios = data.variance_ratio ?? [];
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);

  // The classes on a card; the viewer shows all.
  const CARD_CLASSES = 3;
  const VIEWS = ["both", "input", "map", "overlay"];
  const COMPONENTS = ["all", "red", "green", "blue", "saliency"];
  const ORDINALS = { red: "First", green: "Second", blue: "Third" };

  const state = { view: "both", component: "all", opacity: 0.5, shown: [], current: -1 };
  const cards = [];

  // Texts.

  const percent = (share, digits) => {
    if (!Number.isFinite(share)) return "–";
    const rounded = (share * 100).toFixed(digits);
    const least = (10 ** -digits).toFixed(digits);
    return share > 0 && Number(rounded) === 0 ? `<${least} %` : `${rounded} %`;
  };
  const whole = (share) => percent(share, 0);
  const tenths = (share) => percent(share, 1);
  const plural = (count) => `${count} ${count === 1 ? "image" : "images"}`;
  const readable = (name) => String(name ?? "").replaceAll("_", " ");
  const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
  const inputAlt = (image) => `input: ${image.path}`;
  const mapAlt = (image) => {
    const top = image.classes?.[0];
    const what = state.component === "saliency" ? "saliency" : "PRISM map";
    const seen = top ? `; top class ${readable(top.name)} ${whole(top.probability)}` : "";
    return `${what} of ${image.path}${seen}`;
  };

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Pictures and classes, the same in cards and in the viewer.

  const classRow = $("class-template").content.firstElementChild;

  function fillClasses(list, classes, names) {
    list.replaceChildren(...(classes ?? []).slice(0, names).map((found) => {
      const row = classRow.cloneNode(true);
      row.querySelector(".name").textContent = readable(found.name);
      row.querySelector(".share").textContent = whole(found.probability);
      const width = Math.min(1, Math.max(0, found.probability || 0)) * 100;
      row.querySelector(".bar").style.width = `${width.toFixed(2)}%`;
      return row;
    }));
  }

  function showMap(picture, image) {
    const url = state.component === "saliency" ? image.saliency : image.map;
    picture.classList.toggle("lacking", !url);
    if (url && picture.getAttribute("src") !== url) picture.src = url;
    picture.alt = url ? mapAlt(image) : `no saliency of ${image.path}`;
  }

  function fillPictures(pictures, image) {
    const [input, map] = pictures.children;
    // Both are drawn in this shape, so that they lie on each other to the pixel.
    pictures.style.setProperty("--ratio", image.width / image.height || 1);
    for (const picture of [input, map]) {
      picture.width = image.width;
      picture.height = image.height;
    }
    input.src = image.input;
    input.alt = inputAlt(image);
    showMap(map, image);
  }

  // Gallery.

  const folderEnd = (path) => path.lastIndexOf("/") + 1;

  // The folder that all images lie in is told once, not on every card.
  const shared = images.map(({ path }) => path.slice(0, folderEnd(path)))
    .reduce((common, folder) => {
      while (!folder.startsWith(common)) common = common.slice(0, folderEnd(common.slice(0, -1)));
      return common;
    }, images[0]?.path.slice(0, folderEnd(images[0].path)) ?? "");

  function buildCards() {
    const template = $("card-template").content.firstElementChild;
    const all = document.createDocumentFragment();
    images.forEach((image, index) => {
      const card = template.cloneNode(true);
      const cut = folderEnd(image.path);
      card.dataset.index = index;
      fillPictures(card.querySelector(".pictures"), image);
      card.querySelector(".folder").textContent = image.path.slice(shared.length, cut);
      card.querySelector(".file").textContent = image.path.slice(cut);
      fillClasses(card.querySelector(".classes"), image.classes, CARD_CLASSES);
      cards.push(card);
      all.append(card);
    });
    $("cards").append(all);
    document.body.classList.toggle("few", images.length <= 2);
    // One listener for all cards.
    $("cards").addEventListener("click", (event) => {
      const opener = event.target.closest(".open");
      if (opener) openViewer(Number(opener.closest(".card").dataset.index));
    });
  }

  // Two classes of a network may have one name, so the number decides where there is one.
  const topClass = (image) => {
    const top = image.classes?.[0];
    return top === undefined ? undefined : String(top.id ?? top.name);
  };

  function buildFilter() {
    const found = new Map();
    for (const image of images) {
      const key = topClass(image);
      if (key === undefined) continue;
      const entry = found.get(key) ?? { key, name: readable(image.classes[0].name), count: 0 };
      entry.count += 1;
      found.set(key, entry);
    }
    const names = new Map();
    for (const { name } of found.values()) names.set(name, (names.get(name) ?? 0) + 1);
    const sorted = [...found.values()].sort((a, b) =>
      a.name.localeCompare(b.name, "en") || a.key.localeCompare(b.key, "en", { numeric: true }));
    const options = sorted.map(({ key, name, count }) => {
      const label = names.get(name) > 1 ? `${name}, class ${key}` : name;
      return new Option(`${label} (${count})`, key);
    });
    const filter = $("filter");
    filter.replaceChildren(new Option(`All classes (${images.length})`, ""), ...options);
    filter.addEventListener("change", applyFilter);
    filter.addEventListener("input", applyFilter);
    $("filter-control").hidden = found.size === 0;
  }

  function applyFilter() {
    const wanted = $("filter").value;
    state.shown = [];
    images.forEach((image, index) => {
      const shown = wanted === "" || topClass(image) === wanted;
      cards[index].hidden = !shown;
      if (shown) state.shown.push(index);
    });
    document.body.classList.toggle("filtered", wanted !== "");
    const count = state.shown.length;
    $("shown").textContent =
      wanted === "" ? plural(count) : `${count} of ${plural(images.length)}`;
    $("empty").hidden = count > 0;
  }

  // Controls: above the gallery and in the viewer, with one state.

  function buildControls(place, id) {
    const controls = $("controls-template").content.cloneNode(true);
    const slider = controls.querySelector("input");
    const label = controls.querySelector("label");
    slider.id = id;
    label.htmlFor = id;
    controls.querySelector("[data-component=saliency]").hidden = !hasSaliency();
    // Red, green and blue are the components only in the palette of these.
    for (const component of data.palette === "rgb" ? [] : ["red", "green", "blue"])
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
    slider.addEventListener("input", () =>
      change({ opacity: Number(slider.value), view: "overlay" }));
    place.append(controls);
  }

  const hasSaliency = () => Boolean(data.saliency) && images.some((image) => image.saliency);

  // In the rule itself: a variable on the root would restyle every element of the page.
  const overlay = [...document.styleSheets[0].cssRules]
    .find((rule) => rule.selectorText === ".view-overlay .pictures .map");

  function change(next) {
    const before = { ...state };
    const anchor = next.view !== undefined && next.view !== state.view ? topCard() : null;
    Object.assign(state, next);
    overlay.style.opacity = state.opacity;
    for (const view of VIEWS)
      document.body.classList.toggle(`view-${view}`, view === state.view);
    for (const component of COMPONENTS)
      document.body.classList.toggle(`component-${component}`, component === state.component);
    for (const button of document.querySelectorAll("button[data-view]"))
      button.setAttribute("aria-pressed", button.dataset.view === state.view);
    for (const button of document.querySelectorAll("button[data-component]"))
      button.setAttribute("aria-pressed", button.dataset.component === state.component);
    for (const control of document.querySelectorAll(".slider")) {
      const text = `${Math.round(state.opacity * 100)} %`;
      const slider = control.querySelector("input");
      slider.value = state.opacity;
      slider.setAttribute("aria-valuetext", text);
      control.querySelector("output").textContent = text;
    }
    if ((before.component === "saliency") !== (state.component === "saliency")) {
      images.forEach((image, index) => showMap(cards[index].querySelector(".map"), image));
      if (state.current >= 0)
        showMap($("viewer").querySelector(".map"), images[state.current]);
    }
    $("legend").textContent = legend();
    // The cards get another size: keep the one that was being looked at in its place.
    if (anchor) scrollBy(0, anchor.card.getBoundingClientRect().top - anchor.top);
  }

  function topCard() {
    const bar = document.querySelector(".toolbar").getBoundingClientRect();
    const list = $("cards").getBoundingClientRect();
    const line = Math.max(bar.bottom, 0) + 24;
    if (list.top >= line) return null;
    const card = document.elementFromPoint(list.left + 40, line)?.closest(".card")
      ?? document.elementFromPoint(list.left + 40, line + 48)?.closest(".card");
    return card ? { card, top: card.getBoundingClientRect().top } : null;
  }

  function legend() {
    if (state.view === "input") return "The images, as much of them as the network took.";
    if (state.component === "saliency") return `Saliency, ${data.saliency}, in place of the map.`;
    if (state.component === "all") {
      const line = hasSaliency() ? " The line surrounds saliency above half of the largest." : "";
      return data.palette === "oklab"
        ? `First component from dark to light, second from blue to yellow, third from green to red.${line}`
        : `First component in red, second in green, third in blue.${line}`;
    }
    const share = ratios[["red", "green", "blue"].indexOf(state.component)];
    const held = Number.isFinite(share) ? ` It holds ${whole(share)} of the variance.` : "";
    return `${ORDINALS[state.component]} component alone, dark for low and bright for high.${held}`;
  }

  // Viewer.

  function openViewer(index) {
    showInViewer(index);
    $("viewer").showModal();
  }

  function showInViewer(index) {
    const viewer = $("viewer");
    const image = images[index];
    const place = state.shown.indexOf(index);
    state.current = index;
    $("viewer-title").textContent = image.path;
    $("viewer-place").textContent = `${place + 1} of ${state.shown.length}`;
    // Not disabled: that would take the focus away from a button in use.
    $("viewer-previous").setAttribute("aria-disabled", place <= 0);
    $("viewer-next").setAttribute("aria-disabled", place >= state.shown.length - 1);
    fillPictures(viewer.querySelector(".pictures"), image);
    arrange();
    fillClasses(viewer.querySelector(".classes"), image.classes);
    // Neighbours come from the folder beside the page: have them ready.
    for (const step of [1, -1]) {
      const near = images[state.shown[place + step]];
      if (near) for (const url of [near.input, near.map]) new Image().src = url;
    }
  }

  // Both pictures side by side or stacked, whichever leaves them larger.
  function arrange() {
    const stage = $("viewer").querySelector(".stage");
    const image = images[state.current];
    if (!image || stage.clientHeight === 0) return;
    stage.classList.toggle("stacked",
      stage.clientWidth / stage.clientHeight < image.width / image.height);
  }

  function step(by) {
    const next = state.shown[state.shown.indexOf(state.current) + by];
    if (next !== undefined) showInViewer(next);
  }

  // The focus goes to the image last seen, which is where the reader is.
  function leave() {
    if ($("viewer").open) return;
    const card = cards[state.current];
    state.current = -1;
    card?.querySelector(".open").focus();
  }

  function buildViewer() {
    const viewer = $("viewer");
    new ResizeObserver(arrange).observe(viewer.querySelector(".stage"));
    $("viewer-close").addEventListener("click", () => {
      viewer.close();
      leave();
    });
    $("viewer-previous").addEventListener("click", () => step(-1));
    $("viewer-next").addEventListener("click", () => step(1));
    viewer.addEventListener("keydown", (event) => {
      // The slider has its own use for arrow keys.
      if (event.target.type === "range" || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") step(-1);
      else if (event.key === "ArrowRight") step(1);
      else return;
      event.preventDefault();
    });
    // Escape closes without a click; after a click this has been done already.
    viewer.addEventListener("close", leave);
  }

  // Head.

  function buildHead() {
    document.body.classList.toggle("blocks", Boolean(data.blocks));
    $("title").textContent = document.title;
    const facts = $("facts");
    const fact = (term, value) => {
      if (value === null || value === undefined || value === "") return;
      const told = element("dd");
      told.append(value);
      facts.append(element("dt", term), told);
    };
    fact("Network", data.network);
    fact("Layer", data.excitation);
    const guides = data.guides ?? [];
    if (guides.length > 4) {
      const more = element("details");
      more.append(element("summary", `${guides.length} layers`), guides.join(", "));
      fact("Sharpened by", more);
    } else {
      fact("Sharpened by", guides.join(", ") || "nothing");
    }
    if (guides.length > 0) fact("Rule", data.rule);
    const kept = {
      common: "what all images share",
      unique: "what not all images have",
      all: "all, in 27 colours",
    }[data.keep] ?? data.keep;
    fact("Features kept", data.hatched ? `${kept}; the rest is hatched` : kept);
    const held = (data.variance_ratio ?? []).slice(0, 3).reduce((sum, share) => sum + share, 0);
    const follow = data.colour_correlation;
    const worth = typeof follow === "number" ? `; before upsampling, colours follow the similarity of all channels with r = ${follow.toFixed(2)}` : "";
    fact("Colours", `three components: ${(100 * held).toFixed(0)} % of the variance${worth}`);
    fact("Saliency", data.saliency);
    const terms = { size: "Input", std: "Deviation" };
    for (const { name, text, from } of data.settings ?? []) {
      const term = terms[name] ?? name.charAt(0).toUpperCase() + name.slice(1);
      fact(term, `${text} (${from})`);
    }
    const remarks = data.remarks ?? [];
    if (remarks.length > 0) {
      const list = element("ul", undefined, "remarks");
      list.append(...remarks.map((remark) => element("li", remark)));
      fact("Notes", list);
    }
    fact("Images", shared ? `${images.length} in ${shared}` : String(images.length));
    // On a phone the pictures come first; elsewhere the settings have no lid.
    const phone = matchMedia("(max-width: 30rem)");
    const lid = () => { $("settings").open = !phone.matches; };
    phone.addEventListener("change", lid);
    lid();
    $("made-by").textContent = `Made by prism ${data.prism}.`;
  }

  // The key of the colours.

  function buildKey() {
    const key = data.key;
    $("key").hidden = !key;
    if (!key) return;
    const whose = data.keep ? "most of its places" : "its mean";
    $("key-note").textContent = `Each group has the colour of ${whose}, and the classes that the network
      would see if every place were like its mean.`;
    for (const { colour, name, further, left_out: leftOut } of key.groups) {
      const group = element("li");
      const swatch = element("span", undefined, "swatch");
      if (leftOut) swatch.classList.add("left-out");
      else swatch.style.backgroundColor = colour;
      const words = element("span");
      words.append(element("strong", name), `, ${[...further, ...(leftOut ? ["left out"] : [])].join(", ")}`);
      group.append(swatch, words);
      $("groups").append(group);
    }
    key.components.forEach((classes, index) => {
      if (!classes) return;
      const term = key.axes[index];
      $("ends").append(element("dt", term), element("dd", classes));
    });
  }

  // Variance.

  let redrawVariance = () => {};
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // Ticks by importance, and only those that have room.
  function ticks(plot) {
    const count = ratios.length;
    const wanted = [1, count, 10, 100, 1000, 3, 2, 5, 30, 300, 20, 50, 200, 500]
      .filter((at) => at <= count);
    const kept = [];
    for (const at of wanted) {
      const x = plot.valToPos(at, "x");
      if (kept.every((other) => Math.abs(other.x - x) >= 30)) kept.push({ at, x });
    }
    return kept.map(({ at }) => at).sort((a, b) => a - b);
  }

  // On a logarithmic axis a component is as wide as from half a number below to half above.
  function drawBars(plot) {
    const { ctx } = plot;
    const { left, top, width, height } = plot.bbox;
    const floor = plot.valToPos(0, "y", true);
    const isRgb = data.palette === "rgb";
    const colours = isRgb ? [colour("red"), colour("green"), colour("blue")] : [];
    const rest = colour("rest");
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    ratios.forEach((share, index) => {
      const from = plot.valToPos(index + 0.5, "x", true);
      const to = plot.valToPos(index + 1.5, "x", true);
      const y = plot.valToPos(share || 0, "y", true);
      // A gap between bars, as long as they are wide enough to spare it.
      const gap = to - from > 6 ? devicePixelRatio : 0;
      ctx.fillStyle = colours[index] ?? rest;
      ctx.fillRect(from, y, to - from - gap, floor - y);
    });
    ctx.restore();
  }

  function buildVariance() {
    const place = $("variance");
    const value = $("variance-value");
    if (ratios.length === 0) {
      $("variance-section").hidden = true;
      return;
    }
    const colours = Math.min(3, ratios.length);
    const who = { 1: "The component holds", 2: "The two components hold", 3: "The three components hold" };
    $("variance-note").textContent =
      `${who[colours]} ${whole(sum(ratios.slice(0, 3)))} of the variance.`;

    const mark = element("div", undefined, "bar-mark");
    mark.hidden = true;
    const axis = () => colour("muted");
    const line = () => colour("line");
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const highest = Math.max(...ratios.map((share) => share || 0), 1e-6);
    const size = () => ({ width: Math.max(200, place.clientWidth), height: place.clientHeight });
    let at = null;
    let keyed = false;
    const plot = new uPlot({
      ...size(),
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { x: false, y: false, points: { show: false }, drag: { setScale: false, x: false } },
      scales: {
        x: { time: false, distr: 3, log: 10, range: () => [0.5, ratios.length + 0.5] },
        y: { range: () => [0, highest * 1.05] },
      },
      axes: [
        {
          stroke: axis, font, labelFont: font, label: "component (logarithmic scale)",
          size: 26, gap: 4, labelSize: 20, labelGap: 0,
          grid: { show: false }, ticks: { stroke: line, width: 1, size: 4 },
          splits: ticks, filter: (_, splits) => splits,
          values: (_, splits) => splits.map(String),
        },
        {
          stroke: axis, font, labelFont: font, label: "share of variance",
          size: 48, gap: 6, labelSize: 20, labelGap: 0, space: 28,
          grid: { stroke: line, width: 1 }, ticks: { show: false },
          values: (_, splits) => splits.map((at) => `${Number((at * 100).toFixed(2))} %`),
        },
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: {
        draw: [drawBars],
        // Also called without a pointer, as when the page scrolls: the key's choice stays.
        setCursor: [({ cursor }) => {
          const pointed = cursor.left >= 0;
          if (!pointed && keyed) return;
          keyed = false;
          tell(pointed ? cursor.idx : null);
        }],
      },
    }, [ratios.map((_, index) => index + 1), ratios], place);
    plot.over.append(mark);

    // Read out by the keyboard as by the pointer: the chart is a slider over the components.
    place.tabIndex = 0;
    place.setAttribute("role", "slider");
    place.setAttribute("aria-label", "Share of variance of each component");
    place.setAttribute("aria-valuemin", 1);
    place.setAttribute("aria-valuemax", ratios.length);
    function tell(index) {
      at = index ?? null;
      mark.hidden = at === null;
      value.classList.toggle("hint", at === null);
      if (at === null) {
        value.textContent = "Point at a bar to read its share.";
        place.setAttribute("aria-valuenow", 1);
        place.setAttribute("aria-valuetext", $("variance-note").textContent);
        return;
      }
      const from = plot.valToPos(at + 0.5, "x");
      mark.style.left = `${from}px`;
      mark.style.width = `${Math.max(1, plot.valToPos(at + 1.5, "x") - from)}px`;
      const text = `Component ${at + 1}: ${tenths(ratios[at])}`;
      value.textContent = at === 0
        ? text : `${text}, with those before it ${tenths(sum(ratios.slice(0, at + 1)))}`;
      place.setAttribute("aria-valuenow", at + 1);
      place.setAttribute("aria-valuetext", value.textContent);
    }

    place.addEventListener("keydown", (event) => {
      const last = ratios.length - 1;
      const next = {
        ArrowLeft: Math.max(0, (at ?? 1) - 1),
        ArrowRight: at === null ? 0 : Math.min(last, at + 1),
        Home: 0,
        End: last,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      keyed = true;
      tell(next);
    });
    place.addEventListener("blur", () => {
      keyed = false;
      tell(null);
    });
    tell(null);

    new ResizeObserver(() => plot.setSize(size())).observe(place);
    redrawVariance = () => plot.redraw(false);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawVariance);
  }

  // Paper.

  function preparePrint() {
    // The chart is a picture already when the page is printed: draw it for paper before.
    const printing = (on) => {
      root.classList.toggle("printing", on);
      redrawVariance();
    };
    addEventListener("beforeprint", () => {
      printing(true);
      // Pictures further down may not have been fetched yet.
      for (const index of state.shown)
        for (const picture of cards[index].querySelectorAll("img")) picture.loading = "eager";
    });
    addEventListener("afterprint", () => printing(false));
  }

  buildHead();
  buildCards();
  buildFilter();
  buildControls($("controls"), "opacity");
  buildControls($("viewer-controls"), "viewer-opacity");
  buildViewer();
  change({});
  applyFilter();
  buildKey();
  buildVariance();
  preparePrint();
})();
