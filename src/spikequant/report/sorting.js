"use strict";
// Tables that sort by the head that is pressed.

function sortBy(table, column) {
  const heads = [...table.querySelectorAll("th[aria-sort]")];
  const now = heads[column].getAttribute("aria-sort"), first = heads[column].className === "n" ? "descending" : "ascending";
  const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
  heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
  const sign = order === "ascending" ? 1 : -1, body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.v;
  const compare = (a, b) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // not measured: last, always
    const numbers = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
    return sign * (numbers ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
}

function makeSortable() {
  document.querySelectorAll("table[data-sorts]").forEach((table) => {
    table.querySelectorAll("th[aria-sort] button").forEach((button, i) => button.addEventListener("click", () => sortBy(table, i)));
  });
}
