// The page begins, and prints.

function preparePrint() {
  addEventListener("beforeprint", () => {
    // Pictures further down may not have been fetched yet.
    for (const index of state.shown)
      for (const picture of cards[index].querySelectorAll("img")) picture.loading = "eager";
  });
}

let isReady = false;

if (!isComplete) {
  $("missing").hidden = false;
  $("missing").textContent = `The folder ${data.folder ?? ""} that belongs to this page is missing beside it, or is that of another run: you cannot point at features. Copy it along.`;
}
// On a phone the pictures come first; elsewhere the options have no lid.
const phone = matchMedia("(max-width: 48rem)");
const lid = () => { $("options").open = !phone.matches; };
phone.addEventListener("change", lid);
lid();
document.body.classList.toggle("few", images.length <= 2);
document.body.classList.toggle("two-runs", runs.length > 1);
prepareCards();
// The address is that of the view: it must not become "#cards".
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("cards").focus();
});
buildControls($("controls"), "opacity");
buildControls($("viewer-controls"), "viewer-opacity");
buildViewer();
buildKey();
buildChart();
listenToChoices();
listenTo($("cards"));
listenTo(viewer);
preparePrint();
recall();
isReady = true;
addEventListener("hashchange", recall);
