/* Tables that sort by their columns, and CSV. */

/* Tables whose columns sort at a click: columns are [title, text of a row, number or text to sort by, class] */
function table(columns, rows, caption, sorted) {
  const body = element("tbody");
  const heads = columns.map(([title, , key, kind]) => {
    if (!key) return title ? element("th", { scope: "col", class: "text" }, title) : element("td");
    const head = element("th", { scope: "col", class: kind || null });
    head.append(element("button", { type: "button", onclick: () => {
      const falling = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && typeof key(rows[0]) === "string");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "ascending" : "descending");
      fill([...rows].sort((a, b) => compare(key(a), key(b)) * (falling ? 1 : -1)));
    } }, title));
    return head;
  });
  function fill(list) {
    body.replaceChildren(...list.map(row => element("tr", {}, ...columns.map(([, text, , kind], i) =>
      element(i ? "td" : "th", { class: kind || null, scope: i ? null : "row" }, text(row))))));
  }
  fill(rows);
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
