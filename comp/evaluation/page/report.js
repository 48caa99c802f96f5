"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const classes = data.classes;
const one = id => document.getElementById(id);
const percent = (x, digits = 1) => x === null ? "–" : (100 * x).toFixed(digits) + " %";
const four = x => x === null || x === undefined ? "–" : x.toFixed(4);
const count = n => n.toLocaleString("en");
const F = "F" + data.beta;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const colour = i => `var(--c${i % 8})`;

/* Charts: { title, about, width, height, x: [low, high, label], y: [low, high, label],
   lines: [{ points: [[x, y]], colour, width, dots, faint, name }], marks: [{ x, colour, faint }], bands: [{ from, to, text }],
   bars: [{ x, low, high, colour }], legend } */
function chart(c) {
  const width = c.width || 420, height = c.height || 250;
  const left = c.small ? 30 : 58, right = 10, top = c.bands ? 20 : 10, bottom = c.small ? 22 : 38;
  const sx = x => left + (x - c.x[0]) / ((c.x[1] - c.x[0]) || 1) * (width - left - right);
  const sy = y => height - bottom - (y - c.y[0]) / ((c.y[1] - c.y[0]) || 1) * (height - top - bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": c.about });
  for (const band of c.bands || []) {
    const x = sx(band.from);
    svg.append(drawn("line", { x1: x, x2: x, y1: top - 8, y2: height - bottom, class: "axis", "stroke-dasharray": "3 3" }));
    svg.append(drawn("text", { x: x + 4, y: 12 }, band.text));
  }
  for (const y of ticks(c.y[0], c.y[1], c.small ? 3 : 5)) {
    svg.append(drawn("line", { x1: left, x2: width - right, y1: sy(y), y2: sy(y), class: "axis" }));
    svg.append(drawn("text", { x: left - 5, y: sy(y) + 4, "text-anchor": "end" }, shown(y)));
  }
  for (const x of c.whole ? ticks(c.x[0], c.x[1], 6).filter(Number.isInteger) : ticks(c.x[0], c.x[1], c.small ? 3 : 5)) {
    svg.append(drawn("text", { x: sx(x), y: height - bottom + 15, "text-anchor": "middle" }, shown(x)));
  }
  if (c.x[2] && !c.small) svg.append(drawn("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, c.x[2]));
  if (c.y[2] && !c.small) {
    svg.append(drawn("text", { x: 11, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(top + height - bottom) / 2})` }, c.y[2]));
  }
  for (const mark of c.marks || []) {
    svg.append(drawn("line", {
      x1: sx(mark.x), x2: sx(mark.x), y1: top, y2: height - bottom, style: `stroke: ${mark.colour}`,
      "stroke-width": mark.faint ? 1 : 2.5, opacity: mark.faint ? .55 : 1,
    }));
  }
  for (const bar of c.bars || []) {
    svg.append(drawn("line", { x1: sx(bar.x), x2: sx(bar.x), y1: sy(bar.low), y2: sy(bar.high), style: `stroke: ${bar.colour}` }));
  }
  for (const line of c.lines) {
    const points = line.points.filter(p => p[1] !== null && p[1] !== undefined);
    if (points.length > 1) {
      svg.append(drawn("polyline", {
        points: points.map(p => `${sx(p[0]).toFixed(1)},${sy(p[1]).toFixed(1)}`).join(" "), fill: "none",
        style: `stroke: ${line.colour}`, "stroke-width": line.width || 1.8, "stroke-dasharray": line.dash || "none",
      }));
    }
    for (const p of line.dots || points.length === 1 ? points : []) {
      svg.append(drawn("circle", { cx: sx(p[0]), cy: sy(p[1]), r: 3, style: `fill: ${line.colour}` }, drawn("title", {}, p[2] || `${shown(p[0])}: ${four(p[1])}`)));
    }
  }
  const figure = element("figure", {}, element("figcaption", {}, c.title), svg);
  if (c.legend) {
    figure.append(element("ul", { class: "legend" }, ...c.legend.map(([name, paint, dash]) =>
      element("li", {}, element("i", { style: `border-color: ${paint}; border-top-style: ${dash ? "dashed" : "solid"}` }), name))));
  }
  return figure;
}

function ticks(low, high, n) {
  const rough = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(k => k * power).find(s => s >= rough * .999);
  const found = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let k = 0; k <= 2 * n && (first + k) * step <= high + step * 1e-6; k++) found.push((first + k) * step);
  return found;
}

const shown = x => x && Math.abs(x) < .001 ? x.toExponential(0) : Math.abs(x) >= 1000 ? count(Math.round(x)) : String(Number(x.toPrecision(3)));

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

/* --- head and summary */

one("name").textContent = data.name;
const networks = data.networks.map(([backbone, ...views]) => `${backbone} (views ${views.join(", ")})`).join(" + ");
one("about").textContent =
  `${data.competition}. ${count(data.n_rows)} held-out images, ${classes.length} labels, ${data.n_folds} ` +
  `fold${data.n_folds > 1 ? "s" : ""} of ${networks || "networks that are not here"}; ` +
  `decided by the rule “${data.rule}” for ${data.metric}.`;
for (const section of document.querySelectorAll("section")) {
  one("sections").append(element("li", {}, element("a", { href: "#" + section.id }, section.querySelector("h2").textContent)));
}
const theme = one("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
function paint() {
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Show this page ${dark ? "light" : "dark"}`);
}
theme.addEventListener("click", () => { dark = !dark; paint(); });
paint();

const PART = data.n_folds > 1 ? "fold" : "fifth";
const MEANING = {
  cross_fitted: ["Cross-fitted", `The one to believe: every ${PART} is decided by a rule that was fitted to the other ${PART}s.`],
  in_sample: ["In-sample", "The rule is fitted to the rows that it is scored on: too good, by what thresholds learn by heart."],
  default: ["Default", data.single ? "The most probable label, nothing fitted." : "0.5 for all labels, nothing fitted."],
};
for (const score of data.scores) {
  const [name, text] = MEANING[score.name], values = score.folds.map(f => f.value);
  const tile = element("div", { class: "tile" + (score.name === "cross_fitted" ? " first" : "") },
    element("span", {}, `${name}, ${data.metric}`), element("strong", {}, four(score.value)));
  if (values.length > 1) {
    const all = data.scores.flatMap(s => s.folds.map(f => f.value)), mean = values.reduce((a, b) => a + b) / values.length;
    const spread = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (values.length - 1));
    tile.append(dots(score.folds, Math.min(...all), Math.max(...all)),
      element("span", { class: "quiet" }, `${four(Math.min(...values))} to ${four(Math.max(...values))}, ± ${four(spread)} from fold to fold`));
  }
  tile.append(element("p", {}, text));
  one("scores").append(tile);
}

function dots(folds, low, high) {
  const width = 240, x = v => 8 + (v - low) / ((high - low) || 1) * (width - 16);
  const svg = drawn("svg", { viewBox: `0 0 ${width} 26`, role: "img", "aria-label": "By fold: " + folds.map(f => `${f.fold}: ${four(f.value)}`).join(", ") });
  svg.append(drawn("line", { x1: 0, x2: width, y1: 13, y2: 13, class: "axis" }));
  for (const fold of folds) {
    svg.append(drawn("circle", { cx: x(fold.value), cy: 13, r: 5, style: "fill: var(--c0)", opacity: .75 }, drawn("title", {}, `fold ${fold.fold}: ${four(fold.value)}`)));
  }
  return svg;
}

const warned = data.drift.filter(row => row.warn);
const [honest, fitted] = data.scores.map(s => s.value);
const notes = [
  `Mean average precision ${four(data.mean_ap)}, log loss ${four(data.log_loss)} a label, calibration error ${four(data.calibration.error)}.`,
  `Labels an image: ${data.labels_an_image.true.toFixed(2)} true, ${data.labels_an_image.held_out.toFixed(2)} answered for held-out images, ${data.labels_an_image.test.toFixed(2)} for the ${count(data.n_test)} test images.`,
];
if (data.n_folds === 1) notes.push("One fold alone was held out: for cross-fitted decisions it is cut into fifths at random.");
const rules = Object.entries(data.rules);
if (rules.length > 1) notes.push(`Each ${PART} is decided by the rule that the other ${PART}s choose: ` + rules.map(([rule, parts]) =>
  `${parts.join(", ")} by “${rule}”`).join("; ") + `. Thresholds are those of “${data.rule}”, which decides the test images.`);
if (fitted - honest > .005) notes.push([`The in-sample score is ${four(fitted - honest)} above the cross-fitted one: the thresholds have learnt by heart. A simpler rule, or more rows, would help.`]);
if (warned.length) notes.push([`Test images are given ${warned.map(row => row.name).join(", ")} clearly more or less often than held-out ones: see “Held-out and test images”.`]);
for (const note of notes) one("notes").append(element("li", { class: Array.isArray(note) ? "warning" : null }, String(note)));

/* --- images */

const images = data.images, hasMaps = images.some(image => Object.keys(image.maps).length);
const prob = (image, c) => image.probs[c] || 0;
const source = image => "data:image/jpeg;base64," + image.picture;
const status = (image, c) => {
  const there = image.true.includes(c), answered = image.decided.includes(c);
  return there ? (answered ? "hit" : "miss") : answered ? "alarm" : "none";
};
const WORD = { hit: "right", miss: "missed", alarm: "false alarm", none: "" };
const ANSWER = { hit: "right", miss: "missed", alarm: "false alarm", none: "rightly not" };
const SIGN = { hit: "", miss: "− ", alarm: "+ " };

one("images-about").textContent =
  `${count(images.length)} of ${count(data.n_rows)} held-out images: the worst misses and false alarms, in turn by label, ` +
  "suspected labels, the highest losses, and some at random. Each is answered by the network that did not see it in " +
  "training. − marks a missed label, + a false alarm. Choose one to see its probabilities" +
  (hasMaps ? " and where in it the evidence for a label lies." : ".");
one("label").append(element("option", { value: "" }, "any"), ...classes.map((row, c) => element("option", { value: c }, row.name)));

const PAGE = 48;
let found = [], open = PAGE;

function matches() {
  const label = one("label").value, kind = one("kind").value, order = one("order").value, c = Number(label);
  const fits = image => {
    const kinds = (label === "" ? [...new Set([...image.true, ...image.decided])] : [c]).map(k => status(image, k));
    if (kind === "any") return label === "" || kinds[0] !== "none";
    if (kind === "missed") return kinds.includes("miss");
    if (kind === "alarm") return kinds.includes("alarm");
    return label === "" ? kinds.every(k => k === "hit") : kinds[0] === "hit";
  };
  const p = image => label === "" ? Math.max(0, ...Object.values(image.probs)) : prob(image, c);
  const keys = { loss: i => -i.loss, "-loss": i => i.loss, p: i => -p(i), "-p": p, id: i => i.id };
  return images.filter(fits).sort((a, b) => compare(keys[order](a), keys[order](b)));
}

function card(image, at) {
  const labels = [...new Set([...image.true, ...image.decided])].sort((a, b) => prob(image, b) - prob(image, a));
  return element("li", {}, element("button", { type: "button", onclick: () => view(found, at) },
    element("img", { src: source(image), alt: "", loading: "lazy" }),
    element("span", { class: "quiet" }, `${image.id}, loss ${image.loss.toFixed(2)}`),
    ...labels.map(c => {
      const kind = status(image, c);
      return element("span", { class: kind, title: WORD[kind] }, `${SIGN[kind]}${classes[c].name} ${prob(image, c).toFixed(2)}`,
        kind === "hit" ? null : element("span", { class: "unseen" }, `, ${WORD[kind]}`));
    }), labels.length ? null : element("span", {}, "no label, and none answered")));
}

function refresh(keep) {
  found = matches();
  if (!keep) open = PAGE;
  one("gallery").replaceChildren(...found.slice(0, open).map(card));
  const label = one("label").value, kind = one("kind").value, row = classes[Number(label)];
  let whole = "";
  if (label !== "" && kind === "missed") whole = ` Of all held-out images, ${count(row.misses)} of ${count(row.n)} with ${row.name} were missed.`;
  if (label !== "" && kind === "alarm") whole = ` Of all held-out images, ${count(row.alarms)} without ${row.name} were given it.`;
  one("count").textContent = `${count(Math.min(open, found.length))} of ${count(found.length)} such images shown.${whole}`;
  one("more").hidden = open >= found.length;
}
for (const id of ["label", "kind", "order"]) one(id).addEventListener("change", () => refresh(false));
one("filters").addEventListener("submit", event => event.preventDefault());
one("more").addEventListener("click", () => {
  const first = open;
  open += PAGE;
  refresh(true);
  one("gallery").children[first]?.querySelector("button").focus();
});
refresh(false);

/* --- one image */

const viewer = one("viewer");
let list = [], place = 0, lit = null;

function view(of, at, label = null) {
  list = of; place = at; lit = null;
  const image = list[place];
  one("viewer-title").textContent = image.id;
  one("large").src = source(image);
  one("large").alt = `${image.id}: ${image.true.map(c => classes[c].name).join(", ") || "no label"}`;
  one("previous").disabled = place === 0;
  one("next").disabled = place === list.length - 1;
  one("viewer-labels").replaceChildren(labelTable(image));
  light(label);
  if (!viewer.open) viewer.showModal();
  if (!viewer.contains(document.activeElement) || document.activeElement.disabled) viewer.focus();
}

function labelTable(image) {
  const asked = new Set([...image.true, ...image.decided, ...Object.keys(image.maps).map(Number)]);
  const falling = classes.map((_, c) => c).sort((a, b) => prob(image, b) - prob(image, a));
  const chosen = falling.filter((c, i) => asked.has(c) || i < 6);
  const rows = chosen.map(c => {
    const kind = status(image, c), t = classes[c].by_part[image.part];
    const bar = element("span", { class: "bar", "aria-hidden": "true" },
      element("i", { style: `width: ${(100 * prob(image, c)).toFixed(1)}%` }), t === null ? null : element("b", { style: `left: ${100 * t}%` }));
    const button = image.maps[c] ? element("button", { type: "button", "data-label": c, "aria-pressed": "false", onclick: () => light(lit === c ? null : c) }, "where?") : "";
    if (button) button.setAttribute("aria-label", `Where is the evidence for ${classes[c].name}?`);
    return element("tr", {}, element("th", { scope: "row" }, classes[c].name), element("td", {}, bar, " " + prob(image, c).toFixed(3)),
      element("td", { class: "text " + kind }, ANSWER[kind]), element("td", {}, button));
  });
  const marks = image.nearest ? "No label is above its threshold, the mark on its bar, so the nearest is answered."
    : chosen.some(c => classes[c].by_part[image.part] !== null) ? `The mark on a bar is the threshold, fitted without this ${PART}.`
    : `The rule fitted without this ${PART} compares labels with each other, so no threshold is marked.`;
  const head = ["label", "probability", "answer", hasMaps ? "evidence" : ""].map((title, i) =>
    title ? element("th", { scope: "col", class: i > 1 ? "text" : null }, title) : element("td"));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Labels of this image" },
    element("p", { class: "quiet note" }, `Fold ${image.fold}, loss ${image.loss.toFixed(3)}, summed over labels. ${marks}`),
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

function light(c) {
  lit = c !== null && list[place].maps[c] ? c : null;
  const canvas = one("heat"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const button of one("viewer-labels").querySelectorAll("button[data-label]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.label) === lit));
  }
  one("heat-about").textContent = lit === null ? "" : `Red: something, yellow: most of what speaks for ${classes[lit].name} (Grad-CAM${data.maps_by ? `, of ${data.maps_by} alone` : ""}).`;
  if (lit === null) return;
  const [height, width, text] = list[place].maps[lit], bytes = atob(text);
  const small = element("canvas", { width, height }), pixels = new ImageData(width, height);
  for (let i = 0; i < bytes.length; i++) {
    const v = bytes.charCodeAt(i) / 255;
    pixels.data.set([255, Math.round(255 * Math.max(0, 1.6 * v - .6)), 0, Math.round(200 * Math.min(1, v * 1.25))], 4 * i);
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

const move = by => { if (list[place + by]) view(list, place + by); };
one("previous").addEventListener("click", () => move(-1));
one("next").addEventListener("click", () => move(1));
one("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });

/* --- suspected labels */

const doubts = data.suspects, SHOWN = 50;
one("suspects-about").textContent = doubts.length
  ? `${count(data.n_suspects)} labels that are rather wrong than right, by the networks that never trained on these images and ` +
    "by how often labels that they are sure of say the opposite, the most doubtful first. Look at them before you believe the score of a label."
  : "No label is rather wrong than right.";
if (doubts.length) {
  const rows = doubts.slice(0, SHOWN);
  one("suspects-table").append(table([
    ["image", row => row.image === null ? row.id : element("button", { type: "button", class: "plain", "aria-label": `Show ${row.id}`, onclick: () => view([images[row.image]], 0, row.label) }, element("img", { src: source(images[row.image]), alt: "", loading: "lazy" }), row.id), null, "text"],
    ["label", row => classes[row.label].name, row => classes[row.label].name, "text"],
    ["the table says", row => row.given ? "there" : "not there", row => row.given, "text"],
    ["probability", row => row.p.toFixed(3), row => row.p],
    ["doubt", row => row.doubt.toFixed(3), row => row.doubt],
  ], rows, "Suspected labels", [4, "descending"]));
  const safe = text => /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && isNaN(text) ? "'" + text : text; // no formula
  const cell = text => /[",\r\n]/.test(text) ? `"${safe(text).replaceAll('"', '""')}"` : safe(text);
  const csv = ["id,label,given,probability,doubt", ...doubts.map(row => [cell(row.id), cell(classes[row.label].name), row.given, row.p, row.doubt].join(","))].join("\n") + "\n";
  one("suspects-table").append(element("p", {}, element("a", { download: `${data.name}-suspects.csv`, href: "data:text/csv;charset=utf-8," + encodeURIComponent(csv) }, `${doubts.length < data.n_suspects ? "The most doubtful" : "All"} ${count(doubts.length)} as CSV`)));
}

/* --- labels */

one("classes-about").textContent =
  `Each label alone, by cross-fitted decisions. Where average precision is low the networks don't see a label; where a threshold ` +
  `differs from ${PART} to ${PART} there are few images, or any would do (see the curves below). Column titles sort.`;
one("classes-table").append(table([
  ["label", row => row.name, row => row.name, "text"],
  ["images", row => count(row.n), row => row.n],
  ["average precision", row => four(row.ap), row => row.ap],
  ["precision", row => four(row.precision), row => row.precision],
  ["recall", row => four(row.recall), row => row.recall],
  [F, row => four(row.f), row => row.f],
  ["missed", row => count(row.misses), row => row.misses],
  ["false alarms", row => count(row.alarms), row => row.alarms],
  ["threshold", row => row.threshold === null ? "–" : row.threshold.toFixed(3), row => row.threshold],
  [`± ${PART}s`, row => row.spread === null ? "–" : row.spread.toFixed(3), row => row.spread],
], classes, "Labels"));

const common = classes.map((_, c) => c).filter(c => classes[c].curve);
const left = classes.length > common.length ? ` The ${common.length} commonest labels are shown.` : "";

one("thresholds-about").textContent = data.single
  ? `${F} of each label alone against a threshold of its own. The answer here is the most probable label.${left}`
  : `${F} of each label alone against its threshold. A flat top forgives a threshold that is off, a narrow one does not.` +
    (classes.every(row => row.threshold === null) ? ` The rule “${data.rule}” has no thresholds.` : ` They are fitted to ${data.metric}, so they need not be at a label's own top.`) + left;
one("thresholds-charts").append(...common.map(c => {
  const row = classes[c];
  const marks = row.threshold === null ? [] : [
    ...row.by_fold.map(x => ({ x, colour: "var(--c1)", faint: true })), { x: row.threshold, colour: "var(--c1)" }];
  return chart({
    small: true, width: 240, height: 130, title: `${row.name} (${count(row.n)})`, x: [0, 1], y: [0, 1], marks,
    about: `${F} of ${row.name} against its threshold` + (row.threshold === null ? "" : `; chosen ${row.threshold.toFixed(3)}`),
    lines: [{ points: row.curve, colour: "var(--c0)" }],
  });
}));
if (!data.single && classes.some(row => row.threshold !== null)) {
  one("thresholds-charts").after(element("ul", { class: "legend" },
    element("li", {}, element("i", { style: "border-color: var(--c0)" }), F),
    element("li", {}, element("i", { style: "border-color: var(--c1)" }), "the threshold, and thin those fitted without a " + PART)));
}

/* --- calibration */

one("calibration-about").textContent =
  "Of the images that were given a probability of, say, 0.3, three in ten should have the label: the line is where that " +
  "holds. Below it probabilities are too high, above it too low. Lines through dots are 95 % intervals, wide where there are few images.";
one("calibration-label").append(element("option", { value: "" }, "all together"), ...common.map(c => element("option", { value: c }, classes[c].name)));
function wilson(share, n) {
  const z = 1.96, middle = (share + z * z / (2 * n)) / (1 + z * z / n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
function calibrate() {
  const label = one("calibration-label").value, name = label === "" ? "all labels" : classes[label].name;
  const { bins, error } = label === "" ? data.calibration : classes[label].calibration;
  const bars = bins.map(bin => { const [low, high] = wilson(bin.share, bin.n); return { x: bin.p, low, high, colour: "var(--c0)" }; });
  const points = bins.map(bin => [bin.p, bin.share, `probability ${bin.p.toFixed(2)}: ${percent(bin.share)} of ${count(bin.n)} have it`]);
  const found = chart({
    title: `${name}: calibration error ${four(error)}`, width: 420, height: 330, x: [0, 1, "probability"], y: [0, 1, "share that has the label"],
    about: `Calibration of ${name}: ` + points.map(p => p[2]).join("; "), bars,
    lines: [{ points: [[0, 0], [1, 1]], colour: "var(--c7)", dash: "4 4" }, { points, colour: "var(--c0)", dots: true }],
  });
  one("calibration-chart").replaceChildren(found);
}
one("calibration-label").addEventListener("change", calibrate);
calibrate();

/* --- together */

one("together-about").textContent =
  "Of the images that have the row's label, the share that has the column's too: in truth, as answered, and the " +
  `difference (orange: answered together too often, blue: too seldom).${classes.length > data.together.classes.length ? ` The ${data.together.classes.length} commonest labels are shown.` : ""}`;
const few = data.together.classes;
const share = (matrix, r, c) => matrix[r][r] ? matrix[r][c] / matrix[r][r] : 0;
function matrixChart(title, value, paint, about) {
  const side = 12, pad = 100, size = pad + side * few.length;
  const svg = drawn("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": about });
  few.forEach((row, i) => {
    const name = classes[row].name.length > 16 ? classes[row].name.slice(0, 15) + "…" : classes[row].name;
    const style = "font-size: 9px";
    svg.append(drawn("text", { x: pad - 4, y: pad + side * i + 9, "text-anchor": "end", style }, name));
    svg.append(drawn("text", { transform: `translate(${pad + side * i + 9} ${pad - 4}) rotate(-90)`, style }, name));
    few.forEach((column, j) => {
      if (i === j) return;
      const v = value(i, j);
      svg.append(drawn("rect", { x: pad + side * j, y: pad + side * i, width: side - 1, height: side - 1, style: paint(v) },
        drawn("title", {}, `${classes[row].name} with ${classes[column].name}: ${percent(v)}`)));
    });
  });
  return element("figure", {}, element("figcaption", {}, title), svg);
}
const blue = v => `fill: color-mix(in srgb, var(--c0) ${Math.round(100 * Math.min(1, v))}%, var(--panel))`;
const apart = v => `fill: color-mix(in srgb, var(${v > 0 ? "--c1" : "--c0"}) ${Math.round(100 * Math.min(1, Math.abs(v) * 3))}%, var(--panel))`;
const truth = (r, c) => share(data.together.true, r, c), answered = (r, c) => share(data.together.decided, r, c);
one("together-charts").append(
  matrixChart("true", truth, blue, "Which labels come together in truth"),
  matrixChart("answered", answered, blue, "Which labels are answered together"),
  matrixChart("answered minus true", (r, c) => answered(r, c) - truth(r, c), apart, "Where the two differ"));

/* --- drift */

one("drift-about").textContent =
  "How many of the images are given each label. Test images that are given one clearly more or less often (by a fifth and " +
  "by four standard errors) are marked: the test set may differ, or the mean of the folds' networks needs other thresholds than each alone.";
one("drift-table").append(table([
  ["label", row => row.name, row => row.name, "text"],
  ["true", row => percent(row.true, 2), row => row.true],
  ["held out", row => percent(row.held_out, 2), row => row.held_out],
  ["test", row => percent(row.test, 2), row => row.test],
  ["test : held out", row => row.held_out ? (row.test / row.held_out).toFixed(2) : "–", row => row.held_out ? row.test / row.held_out : null],
  ["", row => row.warn ? element("span", { class: "warning" }, "differs") : "", null, "text"],
], data.drift, "Held-out and test images"));

/* --- learning curves */

if (data.curves.length) {
  const several = new Set(data.curves.map(c => c.run)).size > 1;
  const named = c => (several ? `${c.run}, ` : "") + (c.fold === null ? "all images" : `fold ${c.fold}`);
  const runs = [...new Set(data.curves.map(c => c.run))], dash = c => ["none", "6 3", "2 3"][runs.indexOf(c.run) % 3];
  one("curves-about").textContent =
    "Each network by epoch; where the image size changes, a phase begins. The held-out scores are watched without test-time views, " +
    `${data.single ? "" : F + " at one threshold fitted to the same rows, "}and nothing is chosen by them.`;
  const last = Math.max(...data.curves.flatMap(c => c.rows.map(row => row.epoch)));
  const phases = c => JSON.stringify(c.rows.map(row => [row.phase, row.size])), bands = [];
  if (data.curves.every(c => phases(data.curves[0]).startsWith(phases(c).slice(0, -1)))) for (const row of data.curves[0].rows) if (!bands.length || bands.at(-1).phase !== row.phase) bands.push({ phase: row.phase, from: row.epoch, text: `${row.size} px` });
  const legend = data.curves.map((c, i) => [named(c), colour(several ? c.fold ?? 7 : i), runs.indexOf(c.run) % 3]);
  const kinds = [["loss", "training loss", "loss"], ["valid_loss", "held-out loss (log loss)", "loss"], ["mAP", "held-out mean average precision", "mAP"],
    data.single ? ["accuracy", "held-out accuracy", "accuracy"] : ["fbeta", `held-out ${data.metric}`, F], ["lr", "learning rate", "rate"]];
  for (const [key, title, unit] of kinds) {
    const values = data.curves.flatMap(c => c.rows.map(row => row[key])).filter(v => v !== null && v !== undefined);
    if (!values.length) continue;
    const low = Math.min(...values), high = Math.max(...values), room = Math.max((high - low) * .06, Math.abs(high) * 1e-3) || 1;
    one("curves-charts").append(chart({
      title, x: [1, Math.max(last, 2), "epoch"], y: [key === "lr" ? 0 : low - room, high + room, unit], bands, whole: true,
      about: `${title} by epoch; at the end ` + data.curves.map(c => `${named(c)} ${four(c.rows.at(-1)[key])}`).join(", "),
      lines: data.curves.map((c, i) => ({ points: c.rows.map(row => [row.epoch, row[key], `${named(c)}, epoch ${row.epoch}: ${four(row[key])}`]), colour: legend[i][1], dash: dash(c), dots: true })),
    }));
  }
  one("curves-charts").after(element("ul", { class: "legend" }, ...legend.map(([name, paint, dashed]) =>
    element("li", {}, element("i", { style: `border-color: ${paint}; border-top-style: ${dashed ? "dashed" : "solid"}` }), name))));
} else {
  one("curves-about").textContent = "No log of training is beside this run.";
}
