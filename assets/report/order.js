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
  if (viewer.open) showViewerPlace();
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

// The images whose paths are taken: those selected; without a selection, those shown.
const chosen = () => state.selection.size > 0 ? [...state.selection].sort((a, b) => a - b) : state.shown;
const chosenPaths = () => chosen().map((index) => images[index].path).join("\n") + "\n";

async function copyPaths() {
  const text = chosenPaths();
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages of a file may not use the clipboard in all browsers.
    const area = element("textarea", text);
    document.body.append(area);
    area.select();
    isCopied = document.execCommand("copy");
    area.remove();
  }
  $("copy").textContent = isCopied ? "Copied" : "Not copied";
  setTimeout(() => showChoices(), 1500);
}

function savePaths() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([chosenPaths()], { type: "text/plain" }));
  link.download = "images.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
