"use strict";
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const dark = root.classList.contains("dark") ||
      (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.toggle("dark", !dark);
    root.classList.toggle("light", dark);
    theme.setAttribute("aria-pressed", String(!dark));
  });

  const openTarget = () => {
    const found = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (found && found.tagName === "DETAILS") found.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  for (const section of document.querySelectorAll("section[data-edges]")) {
    const canvas = section.querySelector(".canvas");
    if (!canvas) continue;
    const rows = [...canvas.querySelectorAll("li")];
    const dots = [...canvas.querySelectorAll("circle")];
    const lines = new Map();
    for (const path of canvas.querySelectorAll("path")) {
      const source = Number(path.dataset.s);
      if (!lines.has(source)) lines.set(source, []);
      lines.get(source).push(path);
    }
    const next = new Map();
    for (const pair of section.dataset.edges.split(";")) {
      const [from, to] = pair.split(",").map(Number);
      if (!next.has(from)) next.set(from, []);
      next.get(from).push(to);
    }

    // what a dropout's noise reaches: everything behind it, up to the first norm that remembers a variance
    const reach = (start) => {
      const seen = new Set([start]);
      const waiting = [start];
      while (waiting.length) {
        const at = waiting.pop();
        if (at !== start && rows[at].classList.contains("norm") && rows[at].querySelector("b")) continue;
        for (const after of next.get(at) || []) if (!seen.has(after)) { seen.add(after); waiting.push(after); }
      }
      return seen;
    };

    let pressed = -1;
    const light = (index) => {
      const off = index === pressed || index < 0;
      pressed = off ? -1 : index;
      const seen = off ? new Set() : reach(index);
      const stops = (i) => i !== index && rows[i].classList.contains("norm") && rows[i].querySelector("b");
      canvas.classList.toggle("dimmed", !off);
      rows.forEach((row, i) => {
        row.classList.toggle("lit", seen.has(i));
        dots[i].classList.toggle("lit", seen.has(i));
        const button = row.querySelector("button");
        if (button) button.setAttribute("aria-pressed", String(i === pressed));
        for (const path of lines.get(i) || []) path.classList.toggle("lit", seen.has(i) && !stops(i));
      });
    };
    rows.forEach((row, index) => {
      if (!row.classList.contains("dropout")) return;
      row.addEventListener("click", () => light(index));
      row.addEventListener("keydown", (event) => { if (event.key === "Escape") light(-1); });
    });

    const only = section.querySelector(".only-noise");
    const find = section.querySelector(".find");
    const found = section.querySelector(".found");
    const svg = canvas.querySelector("svg");
    const filter = () => {
      const word = find.value.trim().toLowerCase();
      let shown = 0;
      rows.forEach((row) => {
        const match = (!only.checked || row.classList.contains("noisy") || row.classList.contains("dropout")) &&
          (!word || row.textContent.toLowerCase().includes(word));
        row.classList.toggle("away", !match);
        if (match) shown += 1;
      });
      // lines between rows that are not there would lead nowhere
      const all = shown === rows.length;
      svg.style.display = all ? "" : "none";
      canvas.style.setProperty("--lanes", all ? svg.getAttribute("width") + "px" : "0px");
      found.textContent = all ? "" : `${shown} of ${rows.length} operations`;
    };
    only.addEventListener("change", filter);
    find.addEventListener("input", filter);
  }
})();
