"use strict";
// Tables: a click on a heading sorts by it, down, up, and back to the suite's order. References stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const number = text === "" ? NaN : Number(text);
    return Number.isNaN(number) ? text : number;
  };
  const absent = (value) => value === "" || value === "—" || value === "–";
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order !== "none") head.setAttribute("aria-sort", order);
      const last = (row) => row.classList.contains("reference") ? 2 : absent(key(row, column)) ? 1 : 0;
      const rows = order === "none" ? original : [...original].sort((a, b) =>
        last(a) - last(b) || (order === "descending" ? -1 : 1) * compare(key(a, column), key(b, column)));
      body.append(...rows);
    });
  });
}

// Figures: a click, or Enter, enlarges; arrows go on, Escape closes, another click shows every pixel.
const dialog = document.querySelector("dialog");
const stage = dialog.querySelector(".stage");
const links = [...document.querySelectorAll("a.zoom")];
let current = 0;
const show = (index) => {
  current = (index + links.length) % links.length;
  const image = links[current].querySelector("img");
  const large = stage.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  dialog.querySelector(".bar span").textContent = image.alt;
  dialog.querySelector("p").textContent = links[current].nextElementSibling.firstChild.textContent;
  stage.classList.toggle("full", window.innerWidth < 640); // a phone shows no more in the whole than the page
};
links.forEach((link, index) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(index);
  dialog.showModal();
}));
stage.addEventListener("click", () => stage.classList.toggle("full"));
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
for (const button of dialog.querySelectorAll("[data-go]")) {
  button.addEventListener("click", () => show(current + Number(button.dataset.go)));
}
dialog.addEventListener("keydown", (event) => {
  if (stage.classList.contains("full")) return;
  if (event.key === "ArrowRight") show(current + 1);
  if (event.key === "ArrowLeft") show(current - 1);
});
dialog.addEventListener("close", () => links[current].focus());
