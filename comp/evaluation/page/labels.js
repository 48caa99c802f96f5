/* The sections of labels and their probabilities. */

/* --- labels */

const rowsShown = data.shown.map(c => classes[c]);
const rest = rowsShown.length < classes.length
  ? ` ${rowsShown.length} of ${count(classes.length)} ${NOUN}s are shown: the most frequent ones, and of the others the worst by ${data.answer === "labels" ? F : data.metric}.` : "";
if (data.answer !== "labels") {
  const shownNumber = { numbers: num }[data.answer] || four;
  const ABOUT = {
    probabilities: "Each label alone, by its probabilities for held-out images.", grades: "Each grade alone, by cross-fitted decisions.",
    ranking: "The images of each label.", numbers: "Each column of numbers, by cross-fitted answers.",
  };
  byId("classes-about").textContent = `${ABOUT[data.answer]}${rest} Select a column title to sort.`;
  byId("classes-table").append(table([
    [NOUN, row => row.name, row => row.name, "text"],
    ["images", row => count(row.n), row => row.n],
    ...data.columns.map((title, i) => [title, row => title === "given" ? count(row.values[i]) : shownNumber(row.values[i]), row => row.values[i]]),
  ], rowsShown, titled(NOUN) + "s"));
} else {
  byId("classes-about").textContent =
    `Each label alone, by cross-fitted decisions. A low average precision means that the networks do not recognise the label. A threshold ` +
    `that differs between ${PART}s has few images, or hardly matters (see the curves below). Select a column title to sort.${rest}`;
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
  ], rowsShown, "Labels"));
}

const common = classes.map((_, c) => c).filter(c => classes[c].calibration);
const left = classes.length > common.length ? ` The ${common.length} most frequent labels are shown.` : "";

if (SECTIONS.thresholds) {
  byId("thresholds-about").textContent = data.single
    ? `${F} of each label alone against its own threshold. Here the prediction is the most probable label.${left}`
    : `${F} of each label alone against its threshold. At a flat top the threshold matters little, at a narrow one much.` +
      (rowsShown.every(row => row.threshold === null) ? ` The rule “${data.rule}” has no thresholds.` : ` Thresholds are fitted to ${data.metric}, so they need not be at the label's own optimum.`) + left;
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
  if (!data.single && rowsShown.some(row => row.threshold !== null)) {
    byId("thresholds-charts").after(element("ul", { class: "legend" },
      element("li", {}, element("i", { style: "border-color: var(--c0)" }), F),
      element("li", {}, element("i", { style: "border-color: var(--c1)" }), "the threshold; thin lines: fitted without one " + PART)));
}
}

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
  byId("confusion-charts").append(confusionChart(data.confusion, "images"));
}
if (data.together) {

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
}
