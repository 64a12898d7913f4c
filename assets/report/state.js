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
