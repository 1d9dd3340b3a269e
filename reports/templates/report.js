"use strict";
(() => {
  document.documentElement.classList.add("scripted");

  /* Sorting. A cell's data-key is what it sorts by, else its text; cells without a value stay last either way. */
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function keyOf(cell, kind) {
    const key = cell.dataset.key ?? cell.textContent.trim();
    if (key === "") return null;
    return kind === "number" ? Number(key) : key;
  }

  function compare(a, b, kind) {
    return kind === "number" ? (a < b ? -1 : a > b ? 1 : 0) : words.compare(a, b);
  }

  function sortBy(header) {
    const table = header.closest("table");
    const headers = [...header.parentElement.children];
    const kind = header.dataset.kind;
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of headers) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const column = headers.indexOf(header);
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => ({
      row,
      key: keyOf(row.cells[column].querySelector("summary") ?? row.cells[column], kind),
      order: Number(row.cells[0].dataset.key),
    }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) {
        return (a.key === null) - (b.key === null) || a.order - b.order;
      }
      return direction * compare(a.key, b.key, kind) || a.order - b.order;
    });
    body.append(...keyed.map((entry) => entry.row));
  }

  /* Filtering by text (every word must occur) and by outcome (any of the pressed ones; none pressed is all). */
  function setUpFilter(sheet) {
    const tools = sheet.querySelector(".tools");
    const input = tools.querySelector("input");
    const chips = [...tools.querySelectorAll("[data-outcome]")];
    const shown = tools.querySelector(".shown");
    const rows = [...sheet.querySelectorAll("tbody tr")].map((row) => ({
      row,
      text: row.textContent.toLowerCase(),
      outcome: row.dataset.outcome,
    }));

    function apply() {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const outcomes = new Set(chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.outcome));
      let count = 0;
      for (const { row, text, outcome } of rows) {
        const fits = wanted.every((word) => text.includes(word)) && (outcomes.size === 0 || outcomes.has(outcome));
        row.hidden = !fits;
        count += fits ? 1 : 0;
      }
      shown.textContent = count === rows.length ? "" : `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
    }

    input.addEventListener("input", apply);
    for (const chip of chips) {
      chip.addEventListener("click", () => {
        chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
        apply();
      });
    }
    sheet.addEventListener("reveal", () => {
      input.value = "";
      for (const chip of chips) chip.setAttribute("aria-pressed", "false");
      apply();
    });
    tools.hidden = false;
  }

  /* Pointing at a mark of a picture says what it is; clicking it goes to its row. */
  const tip = document.getElementById("tip");

  function showTip(mark, event) {
    tip.textContent = mark.dataset.title;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const below = event.clientY + 18 + box.height < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? event.clientY + 18 : Math.max(8, event.clientY - box.height - 12)}px`;
  }

  function setUpPicture(picture) {
    for (const title of picture.querySelectorAll(".mark > title")) {
      title.parentElement.dataset.title = title.textContent;
      title.remove();
    }
    picture.addEventListener("pointermove", (event) => {
      const mark = event.target.closest(".mark");
      if (mark) showTip(mark, event);
      else tip.hidden = true;
    });
    picture.addEventListener("pointerleave", () => { tip.hidden = true; });
    picture.addEventListener("click", (event) => {
      const mark = event.target.closest(".mark");
      if (mark) goTo(document.getElementById(mark.dataset.row));
    });
  }

  function goTo(row) {
    tip.hidden = true;
    if (row.hidden) row.closest(".sheet").dispatchEvent(new Event("reveal"));
    for (const found of document.querySelectorAll("tr.found")) found.classList.remove("found");
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
    row.querySelector("summary").focus({ preventScroll: true });
  }

  /* The results that the page carries, saved as the JSON lines that they came as. */
  function save(button) {
    const lines = JSON.parse(document.getElementById(button.dataset.file).textContent).map((r) => JSON.stringify(r));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const sheet of document.querySelectorAll(".sheet")) {
    setUpFilter(sheet);
    for (const header of sheet.querySelectorAll("th[data-kind]")) {
      header.querySelector("button").addEventListener("click", () => sortBy(header));
    }
  }
  for (const picture of document.querySelectorAll(".scatter")) setUpPicture(picture);
  const files = document.querySelector(".files");
  files.hidden = files.querySelector("button") === null;
  for (const button of files.querySelectorAll("button")) button.addEventListener("click", () => save(button));
})();
