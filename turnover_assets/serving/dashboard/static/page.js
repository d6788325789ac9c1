// Sorting and searching in lists that are whole on the page, and walking over the map by arrow keys.
"use strict";
(() => {
  const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}_.]+/gu) || [];
  const locale = document.documentElement.dataset.locale;

  const sortable = (table) => {
    const head = [...table.tHead.rows[0].cells];
    head.forEach((cell, position) => {
      if (cell.classList.contains("sparks")) return;
      let link = cell.querySelector("a");
      if (!link) {
        link = document.createElement("a");
        link.href = "#" + table.id;
        link.textContent = cell.textContent.trim();
        cell.replaceChildren(link);
      }
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const first = cell.dataset.descends ? "descending" : "ascending";
        const second = first === "descending" ? "ascending" : "descending";
        const order = cell.getAttribute("aria-sort") === first ? second : first;
        head.forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", order);
        sort(table, position, order === "descending" ? -1 : 1);
      });
    });
  };

  const sort = (table, position, sign) => {
    const collator = new Intl.Collator(locale, { numeric: true });
    const keyed = [...table.tBodies[0].rows].map((row) => {
      const cell = row.cells[position];
      const given = cell.dataset.value;
      return { row, number: given === undefined ? null : given === "" ? NaN : Number(given), text: cell.textContent.trim() };
    });
    keyed.sort((a, b) => {
      if (a.number === null) return sign * collator.compare(a.text, b.text);
      if (Number.isNaN(a.number)) return Number.isNaN(b.number) ? 0 : 1;
      return Number.isNaN(b.number) ? -1 : sign * (a.number - b.number);
    });
    table.tBodies[0].append(...keyed.map((each) => each.row));
  };

  const filtering = (input) => {
    const table = document.getElementById(input.dataset.filter);
    if (!table || !("sortable" in table.dataset)) return;
    const rows = [...table.tBodies[0].rows].map((row) => [row, words(row.cells[0].textContent)]);
    const count = document.querySelector("[data-count]");
    input.addEventListener("input", () => {
      const wanted = words(input.value);
      let left = 0;
      for (const [row, known] of rows) {
        const fits = wanted.every((word) => known.some((each) => each.startsWith(word)));
        row.hidden = !fits;
        left += fits;
      }
      if (count) count.textContent = new Intl.NumberFormat(locale).format(left) + (wanted.length ? " found" : " in all");
    });
    input.form.addEventListener("submit", (event) => event.preventDefault());
  };

  // One stop for the tab key; arrow keys go to the nearest place that way.
  const walkable = (map) => {
    const links = [...map.querySelectorAll("a")];
    if (!links.length) return;
    const places = links.map((link) => link.firstElementChild).map((c) => [+c.getAttribute("cx"), +c.getAttribute("cy")]);
    const told = map.parentElement.querySelector(".readout");
    const hold = (position) => links.forEach((link, k) => link.setAttribute("tabindex", k === position ? "0" : "-1"));
    hold(0);
    told.textContent = "Point at a circle, or go there by the arrow keys, to read what it stands for.";
    links.forEach((link, k) => {
      const tell = () => { told.textContent = link.getAttribute("aria-label"); };
      link.addEventListener("mouseenter", tell);
      link.addEventListener("focus", () => { tell(); hold(k); });
      link.addEventListener("keydown", (event) => {
        const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!way) return;
        event.preventDefault();
        let best = -1, least = Infinity;
        places.forEach(([x, y], other) => {
          const along = (x - places[k][0]) * way[0] + (y - places[k][1]) * way[1];
          const aside = Math.abs((x - places[k][0]) * way[1]) + Math.abs((y - places[k][1]) * way[0]);
          if (other !== k && along > 0 && along + 2 * aside < least) { least = along + 2 * aside; best = other; }
        });
        if (best >= 0) links[best].focus();
      });
    });
  };

  const current = document.querySelector(".top nav [aria-current]"), bar = document.querySelector(".top nav ul");
  if (current) bar.scrollLeft = current.offsetLeft - bar.offsetLeft - (bar.clientWidth - current.offsetWidth) / 2;
  document.querySelectorAll("table[data-sortable]").forEach(sortable);
  document.querySelectorAll("input[data-filter]").forEach(filtering);
  document.querySelectorAll("svg[data-map]").forEach(walkable);
  // A button that asks for something that takes a while says so, until the answer, or the reader's way back.
  document.querySelectorAll("button[data-busy]").forEach((button) => {
    const told = button.textContent;
    button.form.addEventListener("submit", () => { button.textContent = button.dataset.busy; });
    addEventListener("pageshow", () => { button.textContent = told; });
  });
  const chosen = document.getElementById("lang");
  if (chosen) chosen.addEventListener("change", () => chosen.form.submit());
})();
