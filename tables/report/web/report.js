"use strict";
// The page works without this script: it adds sorting, the dialog, the players and the choice of what charts show.
document.documentElement.classList.add("scripted");

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Sorting. A column goes from its first direction to the other, then back to the paper's order; missing values stay last.
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = all("th[aria-sort]", table);
  headings.forEach((heading, column) => {
    const numeric = heading.classList.contains("number");
    const order = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    heading.querySelector("button").addEventListener("click", () => {
      const next = order[(order.indexOf(heading.getAttribute("aria-sort")) + 1) % order.length];
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? original : sorted(original, column, numeric, next === "ascending" ? 1 : -1)));
    });
  });
}

function sorted(rows, column, numeric, sign) {
  const keyed = rows.map((row) => ({ row, key: row.cells[column].dataset.sort }));
  const compare = numeric
    ? (a, b) => Number(a.key) - Number(b.key)
    : (a, b) => a.key.localeCompare(b.key, "en", { numeric: true });
  const present = keyed.filter((entry) => entry.key !== "").sort((a, b) => sign * compare(a, b));
  return [...present, ...keyed.filter((entry) => entry.key === "")].map((entry) => entry.row);
}

// The provenance of a number, in a dialog. The links lead to the same text at the end of the page.
const dialog = document.getElementById("dialog");
const body = dialog.querySelector(".dialog-body");

document.addEventListener("click", (event) => {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest("a[href^='#r'], a[href^='#p-'], a[href^='#s-']");
  const source = link && document.getElementById(link.hash.slice(1));
  if (!source) return;
  event.preventDefault();
  show(link, source);
});

function open(title, value, content, isPicture) {
  dialog.querySelector("#dialog-title").textContent = title;
  dialog.querySelector(".dialog-value").textContent = value;
  body.classList.toggle("picture", isPicture);
  body.replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function show(link, source) {
  const copy = source.cloneNode(true);
  copy.querySelector(":scope > dt")?.remove(); // the title again
  const { column, exact } = link.dataset;
  open(source.dataset.title, column ? `${column}: ${exact}` : "", copy.childNodes, false);
}

// Pictures at their own size.
document.addEventListener("click", (event) => {
  const image = event.target.closest(".enlarge")?.querySelector("img");
  if (image) open(image.alt, "", [image.cloneNode()], true);
});

dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
});

// All records at once.
const records = all("details.record");
document.querySelector("[data-open-all]")?.addEventListener("click", (event) => {
  const open = records.some((record) => !record.open);
  for (const record of records) record.open = open;
  event.target.textContent = open ? "Close all records" : "Open all records";
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.closest(".command").querySelector("pre");
  getSelection().selectAllChildren(text);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Selected"; // the browser keeps the clipboard to itself; the text is ready for Ctrl-C
  }
});

// Which backbones a chart shows.
for (const figure of all("figure.compare")) {
  figure.addEventListener("change", (event) => {
    for (const series of all(`.series[data-series="${event.target.dataset.series}"]`, figure)) {
      series.classList.toggle("off", !event.target.checked);
    }
  });
}

// Films: all backbones of a sequence show the same frame.
const FRAMES_PER_SECOND = 4;
for (const film of all("figure.film")) {
  const images = all("image", film);
  const names = all(".frame-names li", film).map((item) => item.textContent);
  const [button, slider, output] = ["[data-play]", "input", "output"].map((selector) => film.querySelector(selector));
  let timer = null;
  const seek = (frame) => {
    slider.value = frame;
    output.textContent = names[frame];
    for (const image of images) image.setAttribute("y", -frame * image.parentNode.dataset.height);
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => seek((Number(slider.value) + 1) % names.length), 1000 / FRAMES_PER_SECOND) : null;
    button.textContent = on ? "Pause" : "Play";
  };
  button.addEventListener("click", () => play(timer === null));
  slider.addEventListener("input", () => {
    play(false);
    seek(Number(slider.value));
  });
}
