/* The sections of grades, rankings and numbers. */

if (data.grades) {
  const { by_grade: parts, cuts, by_part: without } = data.grades;
  byId("grades-about").textContent =
    `The expected grade, which is the mean of the grades weighed by their probabilities${classes[0].name === "0" ? "" : ` (${classes[0].name} counts as 0)`}, of the images of each true grade` +
    (cuts.length ? `. Lines are the cut points between the grades that are given; thin ones were fitted without one ${PART}.` : ". The most probable grade is given, so there are no cut points.") +
    (parts.length < classes.length ? ` The ${parts.length} most frequent grades are shown.` : "");
  const marks = [...(data.rule === "rounded" ? [] : without.map(x => ({ x, colour: "var(--c1)", faint: true }))), ...cuts.map(x => ({ x, colour: "var(--c1)" }))];
  byId("grades-charts").append(...parts.map(part => chart({
    title: `${classes[part.class].name} (${several(classes[part.class].n, "image")})`, width: 420, height: 190, x: [part.low, part.high, "expected grade"], y: [0, Math.max(...part.share) * 1.05 || 1, "share of images"], marks,
    about: `The expected grades of the images of grade ${classes[part.class].name}; cut points: ${cuts.map(num).join(", ") || "none"}`,
    lines: [{ points: steps(part.share, part), colour: "var(--c0)" }],
  })));
}

if (data.ranking) {
  const { k, within, pairs } = data.ranking;
  byId("ranking-about").textContent = `The share of images with a true label among the first 1, 2, … labels of the ranking. An answer has ${k}, the dot.`;
  byId("ranking-chart").append(chart({
    title: "A true label is among the first", x: [1, Math.max(2, within.length), "labels"], y: [0, 1, "share of images"], whole: true,
    about: within.map((share, i) => `first ${i + 1}: ${percent(share)}`).join("; "),
    lines: [{ points: within.map((share, i) => [i + 1, share]), colour: "var(--c0)" }, { points: [[k, within[k - 1]]], colour: "var(--c1)" }],
  }));
  byId("pairs-about").textContent = pairs.length
    ? `The true label and the one that comes first instead, by images.${pairs.length < data.ranking.n_pairs ? ` The first ${pairs.length} of ${count(data.ranking.n_pairs)} pairs are shown.` : ""}`
    : "A true label comes first for every image.";
  if (pairs.length) byId("pairs-table").append(table([
    ["true", pair => classes[pair.true].name, pair => classes[pair.true].name, "text"],
    ["first", pair => classes[pair.given].name, pair => classes[pair.given].name, "text"],
    ["images", pair => count(pair.n), pair => pair.n],
    ["of the true label's", pair => percent(pair.share), pair => pair.share],
  ], pairs, "Labels taken for each other", [2, "descending"]));
}

if (data.numbers) {
  byId("numbers-about").textContent =
    "On the dashed line predicted and true numbers are equal. Errors, predicted minus true, are those of images with similar true numbers: a dot is " +
    "their median, and four fifths of them lie on its line. Networks tend to the mean, so small numbers are often predicted too high and large ones too low." +
    (data.numbers.length < classes.length ? ` The first ${data.numbers.length} columns are shown.` : "");
  choices("numbers-column", data.numbers.map((_, c) => [c, classes[c].name]));
  const plot = () => {
    const c = Number(byId("numbers-column").value), { points, parts, n } = data.numbers[c], name = classes[c].name;
    const all = points.flat(), [low, high] = [Math.min(...all), Math.max(...all)], some = points.length < n ? `, ${count(points.length)} of ${count(n)} images` : "";
    const ends = parts.flatMap(([, a, , b]) => [a, b, 0]), [first, last] = [parts[0][0], parts.at(-1)[0]], room = (last - first) * .03, width = 420, height = 330;
    byId("numbers-charts").replaceChildren(
      chart({ title: `${name}: predicted and true${some}`, width, height, x: [low, high, "true"], y: [low, high, "predicted"], points, about: `Predicted over true numbers of ${name}`, lines: [{ points: [[low, low], [high, high]], colour: "var(--c7)", dash: "4 4" }] }),
      chart({
        title: `${name}: errors by true number`, width, height, x: [first - room, last + room, "true"], y: [Math.min(...ends), Math.max(...ends), "predicted minus true"],
        about: `Errors of ${name}: ` + parts.map(([x, , middle]) => `at ${num(x)} ${num(middle)}`).join("; "),
        bars: parts.map(([x, a, , b]) => ({ x, low: a, high: b, colour: "var(--c0)" })),
        lines: [{ points: [[first - room, 0], [last + room, 0]], colour: "var(--c7)", dash: "4 4" },
          { points: parts.map(([x, a, middle, b, n]) => [x, middle, `true about ${num(x)}: ${num(middle)} (${num(a)} to ${num(b)}), ${several(n, "image")}`]), colour: "var(--c0)", dots: true }],
      }));
  };
  byId("numbers-column").addEventListener("change", plot);
  plot();
}
