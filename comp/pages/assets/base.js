"use strict";
/* Helpers of all pages: the data inside the page, elements, texts of numbers, light and dark. */

const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const percent = (x, digits = 1) => x === null ? "–" : (100 * x).toFixed(digits) + " %";
const four = x => x === null || x === undefined ? "–" : x.toFixed(4).replace("-0.0000", "0.0000");
const count = n => n.toLocaleString("en");
const num = x => x === null || x === undefined ? "–" : Math.abs(x) >= 1e4 ? count(Math.round(x)) : String(Number(x.toPrecision(4)));
const several = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
const titled = text => text[0].toUpperCase() + text.slice(1);
const listed = names => names.slice(0, 10).join(", ") + (names.length > 10 ? ` and ${count(names.length - 10)} more` : "");
/* Fill a select with [value, text]; with one choice it is left out */
function choices(id, options) {
  byId(id).append(...options.map(([value, text]) => element("option", { value }, text)));
  byId(id).closest("form, label").hidden = options.length < 2;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function svgElement(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* A picture by Observable Plot. Screen readers get the sentence `about`, not its hundreds of parts */
function drawn(about, options) {
  const svg = Plot.plot(options);
  for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", about);
  return svg;
}

/* The button with the id "theme" */
const theme = byId("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
function paint() {
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Show this page ${dark ? "light" : "dark"}`);
}
theme.addEventListener("click", () => { dark = !dark; paint(); });
paint();

/* Tables that sort by their columns, and CSV. */

/* Tables whose columns sort at a click: columns are [title, text of a row, number or text to sort by, class]; sorted is
   [column, "ascending" or "descending"] of the first order */
function table(columns, rows, caption, sorted) {
  const body = element("tbody");
  const heads = columns.map(([title, , key, kind]) => {
    if (!key) return title ? element("th", { scope: "col", class: "text" }, title) : element("td");
    const head = element("th", { scope: "col", class: kind || null });
    head.append(element("button", { type: "button", onclick: () => {
      const falling = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && typeof key(rows[0]) === "string");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "ascending" : "descending");
      fill(inOrder(key, falling));
    } }, title));
    return head;
  });
  const inOrder = (key, rising) => [...rows].sort((a, b) => compare(key(a), key(b)) * (rising || key(a) === null || key(b) === null ? 1 : -1));
  function fill(list) {
    body.replaceChildren(...list.map(row => element("tr", {}, ...columns.map(([, text, , kind], i) =>
      element(i ? "td" : "th", { class: kind || null, scope: i ? null : "row" }, text(row))))));
  }
  fill(sorted ? inOrder(columns[sorted[0]][2], sorted[1] === "ascending") : rows);
  if (sorted) heads[sorted[0]].setAttribute("aria-sort", sorted[1]);
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, made);
}

function compare(a, b) {
  if (a === null || b === null) return (a === null ? 0 : 1) - (b === null ? 0 : 1);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

/* Text that a spreadsheet would run as a formula gets a quote in front */
const escapeFormula = text => /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && isNaN(text) ? "'" + text : text;

const csvCell = text => /[",\r\n]/.test(text) ? `"${escapeFormula(text).replaceAll('"', '""')}"` : escapeFormula(text);
