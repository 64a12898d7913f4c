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
  // Only what this page offers.
  const oneOf = (name, values, offers) => {
    const value = parts.get(name);
    if (values.includes(value) && offers(value)) next[name] = value;
  };
  const option = (name) => (value) => !$(name).querySelector(`[value=${value}]`).hidden;
  oneOf("view", VIEWS, () => true);
  oneOf("component", COMPONENTS, (value) => !$("controls").querySelector(`[data-component=${value}]`).hidden);
  for (const [name, values] of [["sort", ORDERS], ["group", GROUPS], ["only", KEPT]])
    oneOf(name, Object.keys(values), option(name));
  const number = (name, least, most, pattern) => {
    const text = parts.get(name) ?? "";
    if (pattern.test(text) && Number(text) >= least && Number(text) <= most) next[name] = Number(text);
  };
  number("opacity", 0, 1, /^[\d.]+$/);
  number("threshold", 0.1, 0.95, /^[\d.]+$/);
  number("open", 0, images.length - 1, /^\d+$/);
  next.search = parts.get("search") ?? "";
  next.pin = pinOf(parts.get("pin") ?? "");
  for (const part of (parts.get("selection") ?? "").split(",")) {
    const [from, to] = /^(\d+)(?:-(\d+))?$/.exec(part)?.slice(1) ?? [];
    if (from === undefined) continue;
    for (let index = Number(from); index <= Number(to ?? from) && index < images.length; index++)
      next.selection.add(index);
  }
  if (next.only === "selected" && next.selection.size === 0) next.only = "all";
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
