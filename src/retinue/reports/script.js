"use strict";
// Without this script the page is complete; with it, tables sort by a click on a column and print with all details open.
for (const heading of document.querySelectorAll("table.sortable thead th:not(.bar)")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sortBy(heading));
}

function sortBy(heading) {
  const table = heading.closest("table");
  const rows = [...table.tBodies[0].rows];
  const first = heading.classList.contains("number") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const th of heading.parentElement.cells) th.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const numeric = heading.classList.contains("number");
  const keys = new Map(rows.map((row) => [row, keyOf(row.cells[heading.cellIndex].textContent, numeric)]));
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => sign * compare(keys.get(a), keys.get(b)));
  table.tBodies[0].append(...rows);
}

function keyOf(text, numeric) {
  if (!numeric) return text.trim();
  const value = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(value) ? -Infinity : value;
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
  return a < b ? -1 : a > b ? 1 : 0;
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
