/* The sections of labels and their probabilities. */

/* --- labels */

const rowsShown = data.shown.map(c => ({ ...classes[c], at: c }));
const rest = rowsShown.length < classes.length
  ? ` ${rowsShown.length} of ${count(classes.length)} ${NOUN}s are shown: the most frequent ones, and of the others the worst by ${data.answer === "labels" ? F : data.metric}.` : "";
const named = [NOUN, row => element("button", { type: "button", class: "plain", "data-label": row.at, "aria-label": `${row.name}: show its images` }, row.name), row => row.name, "text"];
/* A column of numbers with a bar in each cell: shares of 1, or else of the largest number */
function barColumn(title, value, text) {
  const values = rowsShown.map(value).filter(v => v !== null), most = Math.max(...values, 0), whole = values.every(v => v >= 0 && v <= 1);
  return [title, row => value(row) === null || Math.min(...values) < 0 ? text(value(row)) : barred(value(row), whole ? 1 : most, text(value(row))), value];
}
const counted = (title, value) => barColumn(title, value, count);
if (data.answer !== "labels") {
  const worst = data.columns.indexOf(data.own_column), shownNumber = { numbers: num }[data.answer] || four;
  const ABOUT = {
    probabilities: "Each label alone, by its probabilities for held-out images.", grades: "Each grade alone, by cross-fitted decisions.",
    ranking: "The images of each label.", numbers: "Each column of numbers, by cross-fitted answers.",
  };
  byId("classes-about").textContent = `${ABOUT[data.answer]}${rest} The worst come first; select a column title to sort, and a row to see its images.`;
  byId("classes-table").append(table([
    named,
    counted("images", row => row.n),
    ...data.columns.map((title, i) => barColumn(title, row => row.values[i], title === "given" ? count : shownNumber)),
  ], rowsShown, titled(NOUN) + "s", worst < 0 ? null : [worst + 2, data.greater_is_better ? "ascending" : "descending"]));
} else {
  byId("classes-about").textContent =
    `Each label alone, by cross-fitted decisions. A low average precision means that the networks do not recognise the label. A threshold ` +
    `that differs between ${PART}s has few images, or hardly matters. The worst come first; select a column title to sort, and a row to see its images.${rest}`;
  byId("classes-table").append(table([
    named,
    counted("images", row => row.n),
    barColumn("average precision", row => row.ap, four),
    barColumn("precision", row => row.precision, four),
    barColumn("recall", row => row.recall, four),
    barColumn(F, row => row.f, four),
    counted("missed", row => row.misses),
    counted("false alarms", row => row.alarms),
    ["threshold", row => row.threshold === null ? "–" : row.threshold.toFixed(3), row => row.threshold],
    [`± ${PART}s`, row => row.spread === null ? "–" : row.spread.toFixed(3), row => row.spread],
  ], rowsShown, "Labels", [5, "ascending"]));
}

const common = classes.map((_, c) => c).filter(c => classes[c].calibration);
const left = classes.length > common.length ? ` The ${common.length} most frequent labels are shown.` : "";

/* --- precision and recall */

if (SECTIONS.separation) {
  const drawn = common.filter(c => classes[c].separation), decided = data.answer === "labels";
  byId("separation-about").textContent =
    "How well the probabilities tell images with a label from those without it. Precision is the share of the images predicted to have it that do, " +
    "recall the share of those that have it that are found. The area below the ROC curve is the AUC. " +
    `The dot of a single label is ${decided ? "where the cross-fitted decisions are" : data.rule === "binary" ? "at the fitted thresholds" : "at a probability of 0.5"}.${left}`;
  choices("separation-label", [...(drawn.length > 1 ? [["", "all labels"]] : []), ...drawn.map(c => [c, classes[c].name])]);
  const separate = () => {
    const label = byId("separation-label").value, some = label === "" ? drawn : [Number(label)];
    const name = label === "" ? "all labels" : classes[label].name;
    const lines = key => some.map((c, i) => ({ points: classes[c].separation[key], colour: some.length > 1 ? colour(i) : "var(--c0)", width: some.length > 8 ? 1 : 1.8 }));
    const at = key => some.length > 1 || !classes[some[0]].separation[key] ? [] : [{ points: [classes[some[0]].separation[key]], colour: "var(--c1)" }];
    const legend = some.length > 1 && some.length <= 8 ? some.map((c, i) => [classes[c].name, colour(i)]) : null;
    byId("separation-charts").replaceChildren(
      chart({ title: `${name}: precision and recall`, width: 420, height: 330, x: [0, 1, "recall"], y: [0, 1, "precision"], about: `Precision over recall of ${name}`, lines: [...lines("pr"), ...at("at_pr")], legend }),
      chart({
        title: `${name}: ROC`, width: 420, height: 330, x: [0, 1, "share of images without the label"], y: [0, 1, "share of images with it"], about: `ROC curve of ${name}`,
        lines: [{ points: [[0, 0], [1, 1]], colour: "var(--c7)", dash: "4 4" }, ...lines("roc"), ...at("at_roc")], legend,
      }));
  };
  byId("separation-label").addEventListener("change", separate);
  separate();
}

/* --- calibration */

if (SECTIONS.calibration) {
  byId("calibration-about").textContent =
    "Of the images with a predicted probability of 0.3, for example, three in ten should have the label: that is the diagonal. " +
    "Below it probabilities are too high, above it too low. Vertical lines are 95 % intervals, which are wide where there are few images.";
  choices("calibration-label", [...(classes.length > 1 ? [["", "all labels"]] : []), ...common.map(c => [c, classes[c].name])]);
  const calibrate = () => {
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
  };
  byId("calibration-label").addEventListener("change", calibrate);
  calibrate();
}

/* --- together, and confusion */

if (data.confusion) {
  byId("confusion-about").textContent = `The images of each true ${NOUN} by the ${NOUN} that they are given${data.answer === "probabilities" ? ", the most probable one" : ""}.` +
    (classes.length > data.confusion.classes.length ? ` The ${data.confusion.classes.length} most frequent ${NOUN}s are shown.` : "");
  byId("confusion-charts").append(confusionChart(data.confusion, "Images by true (rows) and predicted (columns)"));
}
if (data.together) {
  byId("together-about").textContent =
    "Of the images with the row's label, the share that also has the column's: true, predicted, and the " +
    `difference: orange where they are predicted together too often, blue where too rarely.${classes.length > data.together.classes.length ? ` The ${data.together.classes.length} most frequent labels are shown.` : ""}`;
  const names = data.together.classes.map(c => classes[c].name);
  const share = (counts, r, c) => counts[r][r] ? counts[r][c] / counts[r][r] : 0;
  const truth = (r, c) => share(data.together.true, r, c), answered = (r, c) => share(data.together.decided, r, c);
  const cells = value => names.flatMap((row, r) => names.map((column, c) => [r, c, value(r, c), `${column} among ${row}: ${percent(value(r, c))}`])).filter(([r, c]) => r !== c);
  byId("together-charts").append(
    matrix({ title: "true", rows: names, columns: names, cells: cells(truth), about: "Which labels truly occur together" }),
    matrix({ title: "predicted", rows: names, columns: names, cells: cells(answered), about: "Which labels are predicted together" }),
    matrix({ title: "predicted minus true", rows: names, columns: names, cells: cells((r, c) => answered(r, c) - truth(r, c)), paint: differing, scale: DIFFERING, ends: ["33 points less", "33 points more"], about: "Where the two differ" }));
}
