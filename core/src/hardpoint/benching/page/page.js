"use strict";
// The page says everything without this script: it sorts the table and points a candidate out.

function setUpSorting(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  function value(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return column === 0 && text ? Number(text) : text;
  }

  function sort(column) {
    const up = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
    rows.sort((a, b) => {
      // What is not known comes last, whichever way.
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      const order = a.key < b.key ? -1 : Number(a.key > b.key);
      return up ? order : -order;
    });
    body.append(...rows.map((each) => each.row));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  const wanted = decodeURIComponent(location.hash.slice(1));
  const at = heads.findIndex((head) => head.textContent === wanted);
  if (at >= 0) sort(at);
}

function setUpPointing() {
  const marked = [...document.querySelectorAll("[data-row]")];

  function point(number) {
    for (const each of marked) {
      const mine = each.dataset.row === number;
      if (each.tagName === "TR") each.classList.toggle("chosen", number !== null && mine);
      else each.classList.toggle("away", number !== null && !mine);
    }
  }

  for (const each of marked) {
    each.addEventListener("mouseenter", () => point(each.dataset.row));
    each.addEventListener("mouseleave", () => point(null));
  }
}

const rows = document.querySelector(".rows");
if (rows) setUpSorting(rows);
setUpPointing();
