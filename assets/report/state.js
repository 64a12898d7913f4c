// The page of a run, or of two: points at features, and orders and filters the images.

const data = JSON.parse(document.getElementById("data").textContent);
const { runs, images } = data;
const $ = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
// The features are of this page, not of another beside it.
const isComplete = globalThis.prismRun === data.id;
const places = runs.map((run, index) =>
  isComplete && run.places ? new Places(run.places, globalThis.prismPlaces[index]) : null);
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
const isWrong = (image) => image.right.includes(false);
const isChanged = (image) => image.changed === true;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
