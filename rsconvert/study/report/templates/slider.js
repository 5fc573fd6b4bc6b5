"use strict";
// Everything is on the page already: the slider chooses which size is shown, the filter which photos.
const slider = document.getElementById("slider");
const ticks = [...document.querySelectorAll("#ticks [data-size]")];

function show(index) {
  const size = ticks[index].dataset.size;
  slider.value = index;
  slider.setAttribute("aria-valuetext", ticks[index].title);
  for (const part of document.querySelectorAll("[data-size]")) {
    const now = part.dataset.size === size;
    if (part.classList.contains("at")) part.hidden = !now;
    else part.classList.toggle("now", now);
  }
  filter(size);
}

function filter(size) {
  const kind = document.querySelector("[name=photos]:checked")?.value;
  if (!kind) return; // no photos on this page
  const cards = [...document.querySelectorAll(".card")];
  for (const card of cards) {
    const { more, [kind]: sizes } = card.dataset;
    card.hidden = kind === "all" ? more !== undefined : !sizes.split(" ").includes(size);
  }
  document.getElementById("none").hidden = cards.some((card) => !card.hidden);
}

document.querySelector(".choice")?.addEventListener("change", () => show(Number(slider.value)));
slider.addEventListener("input", () => show(Number(slider.value)));
document.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-size]:not(.at)");
  if (chosen) show(ticks.findIndex((tick) => tick.dataset.size === chosen.dataset.size));
});
show(Number(slider.value)); // which a browser may have kept from an earlier visit
