/* Charts by Observable Plot, in the colours of the page. */

const classes = data.classes;
const F = "F" + data.beta;
/* The outline of a histogram: its bars lie evenly between low and high */
const steps = (shares, { low, high }) => shares.flatMap((share, i) => [0, 1].map(end => [low + (high - low) * (i + end) / shares.length, share]));

const colour = i => `var(--c${i % 8})`;
const shown = x => x && Math.abs(x) < .001 ? x.toExponential(0) : Math.abs(x) >= 1000 ? count(Math.round(x)) : String(Number(x.toPrecision(3)));
const cut = (text, n = 20) => text.length > n ? text.slice(0, n - 1) + "…" : text;
const widest = texts => 6.5 * Math.max(...texts.map(text => text.length));  // pixels

/* A figure with its title above and its legend, of [name, colour, whether dashed], below */
function figure(title, picture, legend = null) {
  return element("figure", {}, element("figcaption", {}, title), picture, legend && element("ul", { class: "legend" }, ...legend.map(([name, paint, dashed]) =>
    element("li", {}, element("i", { style: `border-color: ${paint}; border-top-style: ${dashed ? "dashed" : "solid"}` }), name))));
}

/* Lines and points: { title, about, width, height, whole, legend, x: [low, high, label], y: [low, high, label],
   lines: [{ points: [[x, y, text]], colour, width, dash, dots }], marks: [{ x, colour, faint }], bands: [{ from, text }],
   bars: [{ x, low, high, colour }], points: [[x, y]] } */
function chart({ bands = [], marks = [], bars = [], points = [], lines, ...c }) {
  const [left, right, under] = c.x, [bottom, top, beside] = c.y, rows = d3.ticks(bottom, top, 5);
  const known = lines.map(line => ({ ...line, points: line.points.filter(([, y]) => y !== null && y !== undefined) }));
  const dots = known.filter(line => line.dots || line.points.length === 1);
  return figure(c.title, drawn(c.about, {
    width: Math.min(c.width || 420, innerWidth - 32), height: c.height || 250, marginLeft: 14 + widest(rows.map(shown)), marginRight: 16,
    marginTop: bands.length ? 40 : 26, marginBottom: 36,
    x: { domain: [left, right], label: under || null, ticks: c.whole ? d3.ticks(left, right, 6).filter(Number.isInteger) : d3.ticks(left, right, 5), tickFormat: shown },
    y: { domain: [bottom, top], label: beside || null, ticks: rows, tickFormat: shown, grid: true },
    marks: [
      Plot.ruleX(bands, { x: "from", stroke: "var(--line)", strokeDasharray: "3 3" }),
      Plot.text(bands, { x: "from", text: "text", frameAnchor: "top", textAnchor: "start", dx: 3, dy: -14 }),
      ...marks.map(mark => Plot.ruleX([mark.x], { stroke: mark.colour, strokeWidth: mark.faint ? 1 : 2.5, strokeOpacity: mark.faint ? .55 : 1 })),
      ...bars.map(bar => Plot.ruleX([bar], { x: "x", y1: "low", y2: "high", stroke: bar.colour })),
      Plot.dot(points, { r: 2.2, fill: "var(--c0)", fillOpacity: .35 }),
      ...known.map(line => Plot.line(line.points, { stroke: line.colour, strokeWidth: line.width || 1.8, strokeDasharray: line.dash, curve: "linear" })),
      ...dots.map(line => Plot.dot(line.points, { r: 3, fill: line.colour })),
      Plot.tip(dots.flatMap(line => line.points), Plot.pointer({ x: "0", y: "1", title: ([x, y, text]) => text || `${shown(x)}: ${four(y)}` })),
    ],
  }), c.legend);
}

/* A text of a table's cell before a bar that shows a number as a share of the most */
const barred = (value, most, text) => element("span", { class: "barred", style: `--share: ${(100 * Math.min(1, value / (most || 1))).toFixed(1)}%` }, text);

/* One value per fold on a line */
function dots(folds, low, high) {
  return drawn("By fold: " + folds.map(f => `${f.fold}: ${four(f.value)}`).join(", "), {
    width: 240, height: 26, margin: 8, axis: null, x: { domain: low < high ? [low, high] : [low - 1, high + 1] },
    marks: [
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.dotX(folds, { x: "value", y: 0, r: 5, fill: "var(--c0)", fillOpacity: .75, title: f => `fold ${f.fold}: ${four(f.value)}` }),
    ],
  });
}

/* The 95 % interval of a share of n (Wilson, 1927) */
function wilson(share, n) {
  const z = 1.96, middle = (share + z * z / (2 * n)) / (1 + z * z / n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/* The colours of shares, dark to bright, of matrices and heat maps alike: as bright as they are large */
const ramp = share => d3.interpolatePlasma(Math.min(1, Math.max(0, share)));
const RAMP = `linear-gradient(to right, ${d3.quantize(ramp, 9).join(", ")})`;
/* The colours of differences: full from a third on */
const differing = v => `color-mix(in srgb, var(${v > 0 ? "--c1" : "--c0"}) ${Math.round(100 * Math.min(1, Math.abs(v) * 3))}%, var(--panel))`;
const DIFFERING = `linear-gradient(to right, ${differing(-1)}, ${differing(0)}, ${differing(1)})`;

/* Cells of named rows and columns: cells are [row, column, share, text of the tip, text inside]. Cells are painted by
   `ramp`, or another `paint` whose colours are `scale`; the legend names the ends. A share of null is left empty */
function matrix({ title, about, rows, columns, cells, paint = ramp, scale = RAMP, ends = ["0 %", "100 %"] }) {
  const side = Math.max(14, Math.min(44, 340 / columns.length)), high = Math.min(28, side), below = widest(columns) <= side;
  const across = columns.map(name => cut(name)), down = rows.map(name => cut(name)), left = 14 + widest(down), top = below ? 24 : 14 + widest(across);
  const width = left + side * columns.length + 4, height = top + high * rows.length + 4;
  const made = figure(title, drawn(about, {
    width, height, marginLeft: left, marginTop: top, marginRight: 4, marginBottom: 4, color: { type: "identity" }, style: { maxWidth: `${1.15 * width}px` },
    x: { type: "band", domain: d3.range(columns.length), padding: .06, label: null }, y: { type: "band", domain: d3.range(rows.length), padding: .06, label: null },
    marks: [
      Plot.axisX({ anchor: "top", tickFormat: i => across[i], tickSize: 0, ...(below ? {} : { tickRotate: -90, textAnchor: "start", lineAnchor: "middle" }) }),
      Plot.axisY({ tickFormat: i => down[i], tickSize: 0 }),
      Plot.cell(cells, { x: "1", y: "0", fill: cell => cell[2] === null ? "var(--panel)" : paint(cell[2]) }),
      ...(side > 18 ? [Plot.text(cells, { x: "1", y: "0", text: "4", fill: cell => cell[2] === null ? "var(--text)" : cell[2] > .6 ? "black" : "white" })] : []),
      Plot.tip(cells, Plot.pointer({ x: "1", y: "0", title: "3" })),
    ],
  }));
  if (columns.length > 22) made.className = "wide";
  made.append(element("p", { class: "quiet ends" }, ends[0], element("i", { class: "ramp", style: `background: ${scale}` }), ends[1]));
  return made;
}

/* How many images of each true class (rows) were given each class (columns) */
function confusionChart({ classes: few, images }, title) {
  const names = few.map(c => classes[c].name);
  const cells = images.flatMap((row, i) => {
    const total = d3.sum(row);
    return row.map((n, j) => [i, j, total ? n / total : 0, `${names[i]} given ${names[j]}: ${count(n)} of ${count(total)}`, n ? count(n) : ""]);
  });
  return matrix({ title, about: `${title}: rows are true, columns predicted`, rows: names, columns: names, cells, ends: ["0 %", "100 % of the row's images"] });
}
