/* The page: each section is filled from the data. */

/* --- head and summary */

const SECTIONS = {  // that not every answer has
  lab: data.lab, separation: classes.some(row => row.separation), calibration: data.calibration,
  map: data.map, together: data.together, confusion: data.confusion || data.groups?.length, folds: data.by_fold?.classes.length > 1,
  rules: data.weighed.rules.length > 1, submissions: data.submissions, provenance: data.provenance, grades: data.grades, ranking: data.ranking, numbers: data.numbers,
};
for (const [id, there] of Object.entries(SECTIONS)) if (!there) byId(id).remove();
const NOUN = { grades: "grade", numbers: "number" }[data.answer] || "label";
byId("classes-title").textContent = titled(NOUN) + "s";
byId("suspects-title").textContent = `Suspected ${NOUN}s`;
if (SECTIONS.folds) byId("folds-title").textContent = `${titled(NOUN)}s by fold`;

byId("name").textContent = data.name;
const networks = data.networks.map(([backbone, ...views]) => `${backbone} (views ${views.join(", ")})`).join(" + ");
byId("about").textContent =
  `${data.competition}. ${count(data.n_rows)} held-out images, ${several(classes.length, NOUN)}, ${data.n_folds} ` +
  `fold${data.n_folds > 1 ? "s" : ""} of ${networks || "networks whose files are missing"}; ` +
  (data.rule === "as-is" ? `scored by ${data.metric}.` : `decided by the rule “${data.rule}” for ${data.metric}.`);
for (const section of document.querySelectorAll("section")) {
  byId("sections").append(element("li", {}, element("a", { href: "#" + section.id }, section.querySelector("h2").textContent)));
}
const PART = data.n_folds > 1 ? "fold" : "fifth";
const SIMPLEST = { grades: "The most probable grade", probabilities: "The probabilities as they are", numbers: "The numbers as they are" };
const MEANING = {
  cross_fitted: ["Cross-fitted", `The honest score: each ${PART} is decided by a rule fitted to the other ${PART}s.`],
  in_sample: ["In-sample", "Optimistic: the rule was fitted on the rows that it is scored on."],
  default: ["Default", (SIMPLEST[data.answer] || (data.single ? "The most probable label" : "Threshold 0.5 for every label")) + "; nothing is fitted."],
};
if (data.scores.length === 1) MEANING.cross_fitted = ["Held out", "Each image is predicted by the network that was not trained on it. Its answer is taken as it is; nothing is fitted."];
const BETTER = `${data.greater_is_better ? "higher" : "lower"} is better`;
for (const score of data.scores) {
  const [name, text] = MEANING[score.name], values = score.folds.map(f => f.value).filter(v => v !== null);
  const tile = element("div", { class: "tile" + (score.name === "cross_fitted" ? " first" : "") },
    element("span", {}, `${name}, ${data.metric}`), element("strong", {}, four(score.value), " ", element("small", {}, BETTER)));
  if (values.length > 1) {
    const all = data.scores.flatMap(s => s.folds.map(f => f.value)).filter(v => v !== null), mean = values.reduce((a, b) => a + b) / values.length;
    const spread = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (values.length - 1));
    tile.append(dots(score.folds.filter(f => f.value !== null), Math.min(...all), Math.max(...all)),
      element("span", { class: "quiet" }, `${four(Math.min(...values))} to ${four(Math.max(...values))}, ± ${four(spread)} across folds`));
  }
  tile.append(element("p", {}, text));
  byId("scores").append(tile);
}

const board = (data.submissions || []).find(row => row.public !== null || row.private !== null);
if (board) byId("scores").append(element("div", { class: "tile" },
  element("span", {}, board.private === null ? "Leaderboard, public" : "Leaderboard, private"), element("strong", {}, (board.private ?? board.public).toFixed(5)),
  element("span", { class: "quiet" }, board.private === null || board.public === null ? "" : `public ${board.public.toFixed(5)}`),
  element("p", {}, `Of ${board.name}, the last submission of this run with a score.`)));
byId("foot").textContent = `Made by comp ${data.version}, a toolkit for Kaggle's image competitions. This page holds all that it shows; it asks no other machine for anything.`;

const warned = data.drift.filter(row => row.warn);
const [honest, fitted] = data.scores.map(s => s.value);
const notes = [];
if (data.calibration) notes.push(`Mean average precision ${four(data.mean_ap)}, log loss ${four(data.log_loss)} per label, calibration error ${four(data.calibration.error)}.`);
if (data.labels_an_image) notes.push(`Labels per image: ${data.labels_an_image.true.toFixed(2)} true, ${data.labels_an_image.held_out.toFixed(2)} predicted for held-out images, ${data.labels_an_image.test.toFixed(2)} for the ${count(data.n_test)} test images.`);
if (data.grades && data.confusion.classes.length === classes.length) {
  const near = by => data.confusion.images.flatMap((row, i) => row.filter((_, j) => Math.abs(i - j) <= by)).reduce((a, n) => a + n, 0);
  notes.push(`${percent(near(0) / data.n_rows)} of the images get their grade, ${percent(near(1) / data.n_rows)} one that is off by 1 at most.`);
}
if (data.ranking) notes.push(`A true label comes first for ${percent(data.ranking.within[0])} of the images, and is among the first ${data.ranking.k} for ${percent(data.ranking.within[data.ranking.k - 1])}.`);
if (data.numbers && classes.length === 1) notes.push(titled(data.columns.map((title, i) => `${title} ${num(classes[0].values[i])}`).join(", ")) + ".");
if (data.n_unknown) notes.push(`${count(data.n_unknown)} of ${count(data.n_rows * classes.length)} ${NOUN}s are unknown. They are shown as unknown and counted nowhere.`);
if (data.n_folds === 1) notes.push("Only one fold was held out. For cross-fitted decisions it is split into fifths at random.");
const rules = Object.entries(data.rules), FITTED = data.answer === "labels" ? "thresholds" : data.grades?.cuts.length ? "cut points" : "";
if (rules.length > 1) notes.push(`Each ${PART} is decided by the rule chosen on the other ${PART}s: ` + rules.map(([rule, parts]) =>
  `${parts.join(", ")} by “${rule}”`).join("; ") + (FITTED ? `. The ${FITTED} shown are those of “${data.rule}”, which decides the test images.` : "."));
const better = (fitted - honest) * (data.greater_is_better ? 1 : -1);
if (better > .005 && data.answer !== "numbers") notes.push([`The in-sample score is ${four(better)} ${data.greater_is_better ? "above" : "below"} the cross-fitted one: the ${FITTED || (data.grades ? "rules" : "calibrations")} are overfitted. A simpler rule or more rows would help.`]);
const MEANS = ["probabilities", "numbers"].includes(data.answer);
if (warned.length) notes.push([`${listed(warned.map(row => row.name))}: ${MEANS ? "clearly other answers" : "predicted clearly more or less often"} for test images than for held-out ones, see “Held-out and test images”.`]);
for (const note of notes) byId("notes").append(element("li", { class: Array.isArray(note) ? "warning" : null }, String(note)));

/* --- drift */

/* The largest differences first, and before them those that are marked */
const apart = row => Math.abs(MEANS ? row.test - row.held_out : Math.log((row.test + 1e-6) / (row.held_out + 1e-6)));
data.drift.sort((a, b) => b.warn - a.warn || apart(b) - apart(a));
const driftRest = data.shown.length < classes.length
  ? ` ${count(data.drift.length)} of ${count(classes.length)} ${NOUN}s are shown: those of the table of ${NOUN}s, and others that are marked.` : "";
const differs = ["", row => row.warn ? element("span", { class: "warning" }, "differs") : "", null, "text"];
if (MEANS) {
  byId("drift-about").textContent =
    `The mean of the targets, and of the answers for held-out and for test images. A ${NOUN} is marked if the two means of answers differ by more than ` +
    "a fifth of a standard deviation and four standard errors: the test set may differ. Test images are answered by the mean of the folds' networks." + driftRest;
  byId("drift-table").append(table([
    [NOUN, row => row.name, row => row.name, "text"],
    ["true", row => num(row.true), row => row.true],
    ["held out", row => num(row.held_out), row => row.held_out],
    ["test", row => num(row.test), row => row.test],
    ["difference", row => num(row.test - row.held_out), row => row.test - row.held_out],
    differs,
  ], data.drift, "Held-out and test images"));
} else {
  byId("drift-about").textContent =
    `The share of images predicted to have each ${NOUN}${data.ranking ? " as the first" : ""}. A ${NOUN} is marked if the share among test images differs by more than a fifth and ` +
    "four standard errors: the test set may differ, or the mean of the folds' networks may need other thresholds than each network alone." + driftRest;
  byId("drift-table").append(table([
    [NOUN, row => row.name, row => row.name, "text"],
    ["true", row => percent(row.true, 2), row => row.true],
    ["held out", row => percent(row.held_out, 2), row => row.held_out],
    ["test", row => percent(row.test, 2), row => row.test],
    ["test : held out", row => row.held_out ? (row.test / row.held_out).toFixed(2) : "–", row => row.held_out ? row.test / row.held_out : null],
    differs,
  ], data.drift, "Held-out and test images"));
}
const compared = data.grades ? [{ name: "the expected grade", bars: data.grades.both }] : data.drift.filter(row => row.bars);
if (compared.length) {
  choices("drift-label", compared.map((row, i) => [i, row.name]));
  byId("drift-label").value = String(Math.max(0, compared.findIndex(row => row.warn)));
  const compareThem = () => {
    const { name, bars } = compared[Number(byId("drift-label").value)];
    byId("drift-chart").replaceChildren(chart({
      title: `Distribution of ${name}`, width: 420, height: 250, x: [bars.low, bars.high, data.answer === "probabilities" ? "probability" : NOUN],
      y: [0, Math.max(...bars.held_out, ...bars.test) * 1.05, "share of images"],
      about: `Distribution of ${name} for held-out and for test images`,
      lines: [{ points: steps(bars.held_out, bars), colour: "var(--c0)" }, { points: steps(bars.test, bars), colour: "var(--c1)", dash: "5 3" }],
      legend: [["held-out images", "var(--c0)"], ["test images", "var(--c1)", true]],
    }));
  };
  byId("drift-label").addEventListener("change", compareThem);
  compareThem();
} else {
  byId("drift-form").remove();
}

/* --- learning curves */

if (data.curves.length) {
  const mixed = new Set(data.curves.map(c => c.run)).size > 1;
  const named = c => (mixed ? `${c.run}, ` : "") + (c.fold === null ? "all images" : `fold ${c.fold}`);
  const runs = [...new Set(data.curves.map(c => c.run))], dash = c => ["none", "6 3", "2 3"][runs.indexOf(c.run) % 3];
  byId("curves-about").textContent =
    "Each network by epoch. A phase begins where the image size changes. The held-out scores are measured without TTA, " +
    `${data.answer === "labels" && !data.single ? F + " at one threshold fitted to the same rows, " : ""}and no choice depends on them.`;
  const last = Math.max(...data.curves.flatMap(c => c.rows.map(row => row.epoch)));
  const phases = c => JSON.stringify(c.rows.map(row => [row.phase, row.size])), bands = [];
  if (data.curves.every(c => phases(data.curves[0]).startsWith(phases(c).slice(0, -1)))) for (const row of data.curves[0].rows) if (!bands.length || bands.at(-1).phase !== row.phase) bands.push({ phase: row.phase, from: row.epoch, text: `${row.size} px` });
  const legend = data.curves.map((c, i) => [named(c), colour(mixed ? c.fold ?? 7 : i), runs.indexOf(c.run) % 3]);
  const own = data.single && data.answer === "labels" ? ["accuracy", "held-out accuracy", "accuracy"] : ["fbeta", `held-out ${data.metric}`, F];
  const kinds = [["loss", "training loss", "loss"], ["valid_loss", `held-out loss${data.numbers ? "" : " (log loss)"}`, "loss"], ["mAP", "held-out mean average precision", "mAP"],
    own, [data.metric_key, `held-out ${data.metric}`, data.metric], ["lr", "learning rate", "rate"]].filter(([key], i, all) => all.findIndex(other => other[0] === key) === i);
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
