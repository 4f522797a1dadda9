"use strict";
const key = (row, column) => {
  const cell = row.cells[column];
  if (cell.dataset.s !== undefined) return Number(cell.dataset.s);
  const text = cell.textContent.trim();
  return text === "-" ? null : text;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true}));
const sort = (head, column) => {
  const body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  const known = rows.filter(([k]) => k !== null).sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
  // what was not measured stays below, whichever way the others are ordered
  body.append(...[...known, ...rows.filter(([k]) => k === null)].map(([, row]) => row));
};
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(head, head.cellIndex));
}
