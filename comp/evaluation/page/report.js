/* The page: each section is filled from the data. */

/* --- head and summary */

byId("name").textContent = data.name;
const networks = data.networks.map(([backbone, ...views]) => `${backbone} (views ${views.join(", ")})`).join(" + ");
byId("about").textContent =
  `${data.competition}. ${count(data.n_rows)} held-out images, ${classes.length} labels, ${data.n_folds} ` +
  `fold${data.n_folds > 1 ? "s" : ""} of ${networks || "networks whose files are missing"}; ` +
  `decided by the rule “${data.rule}” for ${data.metric}.`;
for (const section of document.querySelectorAll("section")) {
  byId("sections").append(element("li", {}, element("a", { href: "#" + section.id }, section.querySelector("h2").textContent)));
}
const theme = byId("theme");
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
  cross_fitted: ["Cross-fitted", `The honest score: each ${PART} is decided by a rule fitted to the other ${PART}s.`],
  in_sample: ["In-sample", "Optimistic: the rule was fitted on the rows that it is scored on."],
  default: ["Default", data.single ? "The most probable label; nothing is fitted." : "Threshold 0.5 for every label; nothing is fitted."],
};
for (const score of data.scores) {
  const [name, text] = MEANING[score.name], values = score.folds.map(f => f.value);
  const tile = element("div", { class: "tile" + (score.name === "cross_fitted" ? " first" : "") },
    element("span", {}, `${name}, ${data.metric}`), element("strong", {}, four(score.value)));
  if (values.length > 1) {
    const all = data.scores.flatMap(s => s.folds.map(f => f.value)), mean = values.reduce((a, b) => a + b) / values.length;
    const spread = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (values.length - 1));
    tile.append(dots(score.folds, Math.min(...all), Math.max(...all)),
      element("span", { class: "quiet" }, `${four(Math.min(...values))} to ${four(Math.max(...values))}, ± ${four(spread)} across folds`));
  }
  tile.append(element("p", {}, text));
  byId("scores").append(tile);
}

const warned = data.drift.filter(row => row.warn);
const [honest, fitted] = data.scores.map(s => s.value);
const notes = [
  `Mean average precision ${four(data.mean_ap)}, log loss ${four(data.log_loss)} per label, calibration error ${four(data.calibration.error)}.`,
  `Labels per image: ${data.labels_an_image.true.toFixed(2)} true, ${data.labels_an_image.held_out.toFixed(2)} predicted for held-out images, ${data.labels_an_image.test.toFixed(2)} for the ${count(data.n_test)} test images.`,
];
if (data.n_folds === 1) notes.push("Only one fold was held out. For cross-fitted decisions it is split into fifths at random.");
const rules = Object.entries(data.rules);
if (rules.length > 1) notes.push(`Each ${PART} is decided by the rule chosen on the other ${PART}s: ` + rules.map(([rule, parts]) =>
  `${parts.join(", ")} by “${rule}”`).join("; ") + `. The thresholds shown are those of “${data.rule}”, which decides the test images.`);
if (fitted - honest > .005) notes.push([`The in-sample score is ${four(fitted - honest)} above the cross-fitted one: the thresholds are overfitted. A simpler rule or more rows would help.`]);
if (warned.length) notes.push([`${warned.map(row => row.name).join(", ")}: predicted clearly more or less often for test images than for held-out ones, see “Held-out and test images”.`]);
for (const note of notes) byId("notes").append(element("li", { class: Array.isArray(note) ? "warning" : null }, String(note)));

/* --- images */

const images = data.images, hasMaps = images.some(image => Object.keys(image.maps).length);
const prob = (image, c) => image.probs[c] || 0;
const source = image => "data:image/jpeg;base64," + image.picture;
const status = (image, c) => {
  const there = image.true.includes(c), answered = image.decided.includes(c);
  return there ? (answered ? "hit" : "miss") : answered ? "alarm" : "none";
};
const WORD = { hit: "right", miss: "missed", alarm: "false alarm", none: "" };
const ANSWER = { hit: "right", miss: "missed", alarm: "false alarm", none: "rightly absent" };
const SIGN = { hit: "", miss: "− ", alarm: "+ " };

byId("images-about").textContent =
  `${count(images.length)} of ${count(data.n_rows)} held-out images: the worst misses and false alarms of each label, ` +
  "suspected labels, the highest losses, and some at random. Each image is predicted by the network that was not trained " +
  "on it. − marks a missed label, + a false alarm. Select an image to see its probabilities" +
  (hasMaps ? " and where the evidence for a label lies." : ".");
byId("label").append(element("option", { value: "" }, "any"), ...classes.map((row, c) => element("option", { value: c }, row.name)));

const PAGE = 48;
let found = [], open = PAGE;

function matches() {
  const label = byId("label").value, kind = byId("kind").value, order = byId("order").value, c = Number(label);
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
    }), labels.length ? null : element("span", {}, "no label, and none predicted")));
}

function refresh(keep) {
  found = matches();
  if (!keep) open = PAGE;
  byId("gallery").replaceChildren(...found.slice(0, open).map(card));
  const label = byId("label").value, kind = byId("kind").value, row = classes[Number(label)];
  let whole = "";
  if (label !== "" && kind === "missed") whole = ` Of all held-out images, ${count(row.misses)} of ${count(row.n)} with ${row.name} were missed.`;
  if (label !== "" && kind === "alarm") whole = ` Among all held-out images, ${count(row.alarms)} without ${row.name} were false alarms.`;
  byId("count").textContent = `${count(Math.min(open, found.length))} of ${count(found.length)} such images shown.${whole}`;
  byId("more").hidden = open >= found.length;
}
for (const id of ["label", "kind", "order"]) byId(id).addEventListener("change", () => refresh(false));
byId("filters").addEventListener("submit", event => event.preventDefault());
byId("more").addEventListener("click", () => {
  const first = open;
  open += PAGE;
  refresh(true);
  byId("gallery").children[first]?.querySelector("button").focus();
});
refresh(false);

/* --- one image */

const viewer = byId("viewer");
let list = [], place = 0, lit = null;

function view(of, at, label = null) {
  list = of; place = at; lit = null;
  const image = list[place];
  byId("viewer-title").textContent = image.id;
  byId("large").src = source(image);
  byId("large").alt = `${image.id}: ${image.true.map(c => classes[c].name).join(", ") || "no label"}`;
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === list.length - 1;
  byId("viewer-labels").replaceChildren(labelTable(image));
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
  const marks = image.nearest ? "No label passes its threshold (the mark on its bar), so the nearest one is predicted."
    : chosen.some(c => classes[c].by_part[image.part] !== null) ? `The mark on a bar is the threshold fitted without this ${PART}.`
    : `The rule fitted without this ${PART} compares labels with each other: it has no thresholds to mark.`;
  const head = ["label", "probability", "prediction", hasMaps ? "evidence" : ""].map((title, i) =>
    title ? element("th", { scope: "col", class: i > 1 ? "text" : null }, title) : element("td"));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Labels of this image" },
    element("p", { class: "quiet note" }, `Fold ${image.fold}, loss ${image.loss.toFixed(3)}, summed over labels. ${marks}`),
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

function light(c) {
  lit = c !== null && list[place].maps[c] ? c : null;
  const canvas = byId("heat"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const button of byId("viewer-labels").querySelectorAll("button[data-label]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.label) === lit));
  }
  byId("heat-about").textContent = lit === null ? "" : `Red: some, yellow: most of the evidence that speaks for ${classes[lit].name} (Grad-CAM${data.maps_by ? `, ${data.maps_by} only` : ""}).`;
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
byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });

/* --- suspected labels */

const doubts = data.suspects, SHOWN = 50;
byId("suspects-about").textContent = doubts.length
  ? `${count(data.n_suspects)} labels are more likely wrong than right, judged by networks that were not trained on these images and ` +
    "by how often the labels contradict such confident predictions. The most doubtful come first. Check them before you trust a label's score."
  : "No label is more likely wrong than right.";
if (doubts.length) {
  const rows = doubts.slice(0, SHOWN);
  byId("suspects-table").append(table([
    ["image", row => row.image === null ? row.id : element("button", { type: "button", class: "plain", "aria-label": `Show ${row.id}`, onclick: () => view([images[row.image]], 0, row.label) }, element("img", { src: source(images[row.image]), alt: "", loading: "lazy" }), row.id), null, "text"],
    ["label", row => classes[row.label].name, row => classes[row.label].name, "text"],
    ["in the table", row => row.given ? "yes" : "no", row => row.given, "text"],
    ["probability", row => row.p.toFixed(3), row => row.p],
    ["doubt", row => row.doubt.toFixed(3), row => row.doubt],
  ], rows, "Suspected labels", [4, "descending"]));
  const csv = ["id,label,given,probability,doubt", ...doubts.map(row => [csvCell(row.id), csvCell(classes[row.label].name), row.given, row.p, row.doubt].join(","))].join("\n") + "\n";
  byId("suspects-table").append(element("p", {}, element("a", { download: `${data.name}-suspects.csv`, href: "data:text/csv;charset=utf-8," + encodeURIComponent(csv) }, `${doubts.length < data.n_suspects ? "The most doubtful" : "All"} ${count(doubts.length)} as CSV`)));
}

/* --- labels */

byId("classes-about").textContent =
  `Each label alone, by cross-fitted decisions. A low average precision means that the networks do not recognise the label. A threshold ` +
  `that differs between ${PART}s has few images, or hardly matters (see the curves below). Select a column title to sort.`;
byId("classes-table").append(table([
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
const left = classes.length > common.length ? ` The ${common.length} most frequent labels are shown.` : "";

byId("thresholds-about").textContent = data.single
  ? `${F} of each label alone against its own threshold. Here the prediction is the most probable label.${left}`
  : `${F} of each label alone against its threshold. At a flat top the threshold matters little, at a narrow one much.` +
    (classes.every(row => row.threshold === null) ? ` The rule “${data.rule}” has no thresholds.` : ` Thresholds are fitted to ${data.metric}, so they need not be at the label's own optimum.`) + left;
byId("thresholds-charts").append(...common.map(c => {
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
  byId("thresholds-charts").after(element("ul", { class: "legend" },
    element("li", {}, element("i", { style: "border-color: var(--c0)" }), F),
    element("li", {}, element("i", { style: "border-color: var(--c1)" }), "the threshold; thin lines: fitted without one " + PART)));
}

/* --- calibration */

byId("calibration-about").textContent =
  "Of the images with a predicted probability of 0.3, for example, three in ten should have the label: that is the diagonal. " +
  "Below it probabilities are too high, above it too low. Vertical lines are 95 % intervals, which are wide where there are few images.";
byId("calibration-label").append(element("option", { value: "" }, "all labels"), ...common.map(c => element("option", { value: c }, classes[c].name)));
function calibrate() {
  const label = byId("calibration-label").value, name = label === "" ? "all labels" : classes[label].name;
  const { bins, error } = label === "" ? data.calibration : classes[label].calibration;
  const bars = bins.map(bin => { const [low, high] = wilson(bin.share, bin.n); return { x: bin.p, low, high, colour: "var(--c0)" }; });
  const points = bins.map(bin => [bin.p, bin.share, `probability ${bin.p.toFixed(2)}: ${percent(bin.share)} of ${count(bin.n)} have it`]);
  const found = chart({
    title: `${name}: calibration error ${four(error)}`, width: 420, height: 330, x: [0, 1, "probability"], y: [0, 1, "share that has the label"],
    about: `Calibration of ${name}: ` + points.map(p => p[2]).join("; "), bars,
    lines: [{ points: [[0, 0], [1, 1]], colour: "var(--c7)", dash: "4 4" }, { points, colour: "var(--c0)", dots: true }],
  });
  byId("calibration-chart").replaceChildren(found);
}
byId("calibration-label").addEventListener("change", calibrate);
calibrate();

/* --- together */

byId("together-about").textContent =
  "Of the images with the row's label, the share that also has the column's: true, predicted, and the " +
  `difference (orange: predicted together too often, blue: too rarely).${classes.length > data.together.classes.length ? ` The ${data.together.classes.length} most frequent labels are shown.` : ""}`;
const few = data.together.classes;
const share = (matrix, r, c) => matrix[r][r] ? matrix[r][c] / matrix[r][r] : 0;
const truth = (r, c) => share(data.together.true, r, c), answered = (r, c) => share(data.together.decided, r, c);
byId("together-charts").append(
  matrixChart(few, "true", truth, blue, "Which labels truly occur together"),
  matrixChart(few, "predicted", answered, blue, "Which labels are predicted together"),
  matrixChart(few, "predicted minus true", (r, c) => answered(r, c) - truth(r, c), difference, "Where the two differ"));

/* --- drift */

byId("drift-about").textContent =
  "The share of images predicted to have each label. A label is marked if the share among test images differs by more than a fifth and " +
  "four standard errors: the test set may differ, or the mean of the folds' networks may need other thresholds than each network alone.";
byId("drift-table").append(table([
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
  byId("curves-about").textContent =
    "Each network by epoch. A phase begins where the image size changes. The held-out scores are measured without TTA, " +
    `${data.single ? "" : F + " at one threshold fitted to the same rows, "}and no choice depends on them.`;
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
    byId("curves-charts").append(chart({
      title, x: [1, Math.max(last, 2), "epoch"], y: [key === "lr" ? 0 : low - room, high + room, unit], bands, whole: true,
      about: `${title} by epoch; at the end ` + data.curves.map(c => `${named(c)} ${four(c.rows.at(-1)[key])}`).join(", "),
      lines: data.curves.map((c, i) => ({ points: c.rows.map(row => [row.epoch, row[key], `${named(c)}, epoch ${row.epoch}: ${four(row[key])}`]), colour: legend[i][1], dash: dash(c), dots: true })),
    }));
  }
  byId("curves-charts").after(element("ul", { class: "legend" }, ...legend.map(([name, paint, dashed]) =>
    element("li", {}, element("i", { style: `border-color: ${paint}; border-top-style: ${dashed ? "dashed" : "solid"}` }), name))));
} else {
  byId("curves-about").textContent = "This run has no training log.";
}
