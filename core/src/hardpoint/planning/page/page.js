"use strict";
// The page says everything without this script, which only adds comfort.

const segments = [...document.querySelectorAll("details.segment")];

function setUpFilter() {
  const field = document.getElementById("filter");
  const found = document.getElementById("found");
  const rows = [...document.querySelectorAll(".nodes tr")].map((row) => {
    const group = row.closest(".group");
    const segment = row.closest("details.segment");
    const words = [...group.querySelectorAll(".why")].map((p) => p.textContent);
    const summary = segment.querySelector(".where").textContent;
    return { row, group, segment, text: [row.textContent, summary, ...words].join(" ").toLowerCase() };
  });

  function apply() {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set();
    let count = 0;
    for (const { row, group, segment, text } of rows) {
      const matches = wanted.every((word) => text.includes(word));
      row.hidden = !matches;
      if (matches) {
        count += 1;
        kept.add(group).add(segment);
      }
    }
    for (const group of document.querySelectorAll(".group")) group.hidden = !kept.has(group);
    for (const segment of segments) {
      segment.hidden = wanted.length > 0 && !kept.has(segment);
      // Opening hundreds of segments at once would only hide what was looked for.
      if (wanted.length > 0) segment.open = kept.has(segment) && kept.size < 40;
    }
    found.textContent = wanted.length ? `${count} of ${rows.length} operations` : "";
  }

  field.addEventListener("input", apply);
  document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, open] of [["open", true], ["close", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      for (const segment of segments) segment.open = open && !segment.hidden;
    });
  }
  document.getElementById("tools").hidden = false;
}

function openAddressed() {
  const body = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const segment = body && body.closest("details.segment");
  if (!segment) return;
  segment.hidden = false;
  segment.open = true;
  segment.scrollIntoView({ block: "start" });
}

function setUpPicture() {
  const picture = document.querySelector("svg.picture");
  if (!picture) return;
  const lines = [...picture.querySelectorAll(".lines path")];
  const boxes = [...picture.querySelectorAll("[data-box]")];

  function highlight(isNear) {
    const ends = new Set();
    for (const line of lines) {
      const near = isNear(line);
      line.classList.toggle("near", near);
      if (near) ends.add(line.dataset.from).add(line.dataset.to);
    }
    for (const box of boxes) box.classList.toggle("near", ends.has(box.dataset.box));
    picture.classList.toggle("pointed", ends.size > 0);
  }

  const clear = () => highlight(() => false);
  for (const box of boxes) {
    const name = box.dataset.box;
    const show = () => highlight((line) => line.dataset.from === name || line.dataset.to === name);
    box.addEventListener("pointerenter", show);
    box.addEventListener("focus", show);
    box.addEventListener("pointerleave", clear);
    box.addEventListener("blur", clear);
  }
  for (const line of lines) {
    line.addEventListener("pointerenter", () => highlight((other) => other === line));
    line.addEventListener("pointerleave", clear);
  }
}

setUpFilter();
setUpPicture();
addEventListener("hashchange", openAddressed);
openAddressed();
