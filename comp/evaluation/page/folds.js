/* Scores of each label by fold, and confusion within groups of labels that exclude each other. */

if (SECTIONS.folds) {
  const { score, folds, classes: few, values, n_classes } = data.by_fold, known = values.flat().filter(v => v !== null);
  const within = Math.min(...known) >= 0 && Math.max(...known) <= 1;
  byId("folds-about").textContent =
    `${titled(score)} of each ${NOUN} alone in each held-out fold, the worst first. A ${NOUN} that is bad in one fold alone has few images there, or that fold holds images of another kind. ` +
    (within ? "Bright is high." : `Bright is the highest of the ${NOUN}.`) + (few.length < n_classes ? ` ${few.length} of ${count(n_classes)} ${NOUN}s are shown.` : "");
  const names = few.map(c => classes[c].name);
  const cells = values.flatMap((row, i) => {
    const there = row.filter(v => v !== null), [low, high] = [Math.min(...there), Math.max(...there)];
    return row.map((v, j) => [i, j, v === null ? null : within ? v : (v - low) / (high - low || 1), `${names[i]}, fold ${folds[j]}: ${v === null ? "not defined" : `${score} ${num(v)}`}`, v === null ? "–" : within ? v.toFixed(3) : num(v)]);
  });
  byId("folds-chart").append(matrix({
    title: `${titled(score)} by fold`, rows: names, columns: folds.map(fold => `fold ${fold}`), cells, ends: within ? ["0", "1"] : ["lowest", "highest"],
    about: `${score} by fold: ` + names.map((name, i) => `${name} ${values[i].map(v => v === null ? "–" : num(v)).join(", ")}`).join("; "),
  }));
}

/* Rows are the true labels of a group, columns the labels that were given alone, none and several of the group */
for (const { classes: few, images: counts, n_classes } of data.groups || []) {
  const names = few.map(c => classes[c].name), given = [...names, "none", "several"];
  const cells = counts.flatMap((row, i) => {
    const total = d3.sum(row);
    return row.map((n, j) => [i, j, total ? n / total : 0, `${names[i]} given ${given[j]}: ${count(n)} of ${count(total)}`, n ? count(n) : ""]);
  });
  byId("confusion-charts").append(matrix({
    title: `${listed(names.slice(0, 4))}${names.length > 4 ? ", …" : ""}`, rows: names, columns: given, cells, ends: ["0 %", "100 % of the row's images"],
    about: `Confusion of ${listed(names)}: ` + names.map((name, i) => `${name}: ${counts[i].map((n, j) => n ? `${count(n)} given ${given[j]}` : "").filter(Boolean).join(", ")}`).join("; "),
  }));
  byId("confusion-about").textContent = "Labels of a group exclude each other. The images with exactly one true label of a group (rows), by the label that they are given (columns). " +
    "None and several are images that are given no label of the group, or more than one." + (names.length < n_classes ? ` The ${names.length} most frequent labels are shown.` : "");
}
