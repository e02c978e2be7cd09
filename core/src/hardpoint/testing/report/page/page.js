"use strict";
// The page says everything without this script, which only adds a filter.

function setUpFilter() {
  const tools = document.getElementById("tools");
  if (!tools) return;
  const field = document.getElementById("filter");
  const state = document.getElementById("state");
  const found = document.getElementById("found");
  const rows = [...document.querySelectorAll(".cases tbody tr")].map((row) => {
    return { row, text: row.textContent.toLowerCase() };
  });

  function apply() {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { row, text } of rows) {
      const matches = wanted.every((word) => text.includes(word)) && (!state.value || row.dataset.state === state.value);
      row.hidden = !matches;
      count += matches;
    }
    found.textContent = wanted.length || state.value ? `${count} of ${rows.length} samples` : "";
  }

  field.addEventListener("input", apply);
  state.addEventListener("change", apply);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.hidden = false;
}

setUpFilter();
