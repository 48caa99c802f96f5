/* Where a run comes from and what became of it: recipe and machine, rules that were weighed, submissions. */

/* --- provenance */

if (SECTIONS.provenance) {
  const { settings, trainings, ...made } = data.provenance, UNKNOWN = "not recorded";
  const every = key => listed([...new Set(trainings.map(t => t[key]).filter(v => v !== null))].map(String)) || UNKNOWN;
  const begun = trainings.map(t => t.begun).filter(v => v !== null).sort(), mixed = new Set(trainings.map(t => t.run)).size > 1;
  const commits = [...new Set(trainings.map(t => t.commit).filter(v => v !== null))].map(c => c.slice(0, 10));
  const facts = [
    ["Recipe", settings.map(s => s.run).join(" + ") || UNKNOWN],
    ["Seed", String(made.seed)],
    ["Training began", begun.length ? `${begun[0]} UTC${begun.at(-1) > begun[0] ? ` (the last fold at ${begun.at(-1)})` : ""}` : UNKNOWN],
    ["Training time", made.seconds === null ? UNKNOWN : `${duration(made.seconds)}, the sum of ${several(trainings.length, "network")}`],
    ["Machine", listed([...new Set(trainings.filter(t => t.processor).map(t => `${t.processor}${t.processors ? ` × ${t.processors}` : ""}`))]) || UNKNOWN],
    ["Speed", made.rate ? `${count(Math.round(made.rate))} images/s while training at the last size` : UNKNOWN],
    ["Most memory", made.memory ? `${(made.memory / 1e9).toFixed(1)} GB` : UNKNOWN],
    ["Parameters", made.n_parameters ? `${count(made.n_parameters)} in all networks` : UNKNOWN],
    ["comp", every("comp") === UNKNOWN ? UNKNOWN : `${every("comp")}, commit ${listed(commits) || UNKNOWN}`],
  ];
  byId("provenance-about").textContent = "What the run was made from and with, as its own files say.";
  byId("provenance-facts").append(...facts.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
  const rows = settings.flatMap(s => s.keys.map(([key, ours, theirs]) => ({ run: s.run, key, ours, theirs })));
  const shipped = [...new Set(settings.map(s => s.shipped).filter(name => name !== null))];
  byId("provenance-table").append(element("h3", {}, "Settings"), element("p", {}, !settings.length ? "The recipe is not recorded."
    : `Keys whose values are not the defaults${shipped.length ? `, beside the recipe ${shipped.map(name => `“${name}”`).join(", ")} that ships with comp and is the closest; what differs from it is marked` : ""}.` +
    (rows.length ? "" : " All are at their defaults.")));
  if (rows.length) byId("provenance-table").append(table([
    ...(mixed ? [["run", row => row.run, row => row.run, "text"]] : []),
    ["key", row => row.key, row => row.key, "text"],
    ["here", row => element("span", { class: "value" + (shipped.length && row.ours !== row.theirs ? " warning" : "") }, row.ours), null, "text"],
    ...(shipped.length ? [["closest shipped recipe", row => element("span", { class: "value" }, row.theirs), null, "text"],
      ["", row => row.ours !== row.theirs ? element("span", { class: "warning" }, "differs") : "", null, "text"]] : []),
  ], rows, "Settings that are not the defaults"));
  if (trainings.length) byId("provenance-trainings").append(element("h3", {}, "Networks"), table([
    ...(mixed ? [["run", t => t.run, t => t.run, "text"]] : []),
    ["fold", t => t.fold === null ? "all images" : String(t.fold), t => t.fold ?? Infinity, "text"],
    ["began (UTC)", t => t.begun || UNKNOWN, t => t.begun || "", "text"],
    ["time", t => t.seconds === null ? UNKNOWN : barred(t.seconds, Math.max(...trainings.map(t => t.seconds || 0)), duration(t.seconds)), t => t.seconds],
    ["machine", t => t.processor ? `${t.processor}${t.processors ? ` × ${t.processors}` : ""}` : UNKNOWN, t => t.processor || "", "text"],
    ["comp", t => t.comp || UNKNOWN, t => t.comp || "", "text"],
    ["commit", t => t.commit ? element("code", {}, t.commit.slice(0, 10)) : UNKNOWN, t => t.commit || "", "text"],
  ], trainings, "When and where each network was trained"));
}

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  return seconds < 100 ? `${Math.round(seconds)} s` : minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/* --- rules */

if (SECTIONS.rules) {
  const { rules: weighed, reference } = data.weighed, sign = data.greater_is_better ? 1 : -1;
  const reach = Math.max(...weighed.map(row => Math.abs(row.in_sample - row.cross_fitted)));
  byId("rules-about").textContent =
    `Each rule alone, scored by ${data.metric}; ${BETTER}. Cross-fitted scores are honest. The gap is how much better a rule looks on the rows that it was fitted to. ` +
    (reference ? `“${reference}” is kept unless the best rule beats it in more than 95 % of the resamples of the images.` : "Without a reference rule the simplest one is taken that the best does not surely beat.");
  byId("rules-table").append(table([
    ["rule", row => row.rule === data.rule ? element("strong", {}, `${row.rule}, chosen`) : row.rule, row => row.rule, "text"],
    ["cross-fitted", row => four(row.cross_fitted), row => row.cross_fitted],
    ["in-sample", row => four(row.in_sample), row => row.in_sample],
    ["gap", row => barred(Math.abs(row.in_sample - row.cross_fitted), reach, four(sign * (row.in_sample - row.cross_fitted))), row => sign * (row.in_sample - row.cross_fitted)],
    [reference ? `beats “${reference}”` : "the best beats it", row => row.sure === null ? "–" : barred(row.sure, 1, percent(row.sure, 0)), row => row.sure],
  ], weighed, "Rules that were weighed", [1, sign > 0 ? "descending" : "ascending"]));
}

/* --- submissions */

if (SECTIONS.submissions) {
  const rows = data.submissions, scored = rows.filter(row => row.public !== null || row.private !== null);
  byId("submissions-about").textContent = rows.length
    ? `Submissions of this run, the newest first, as submissions/ledger.csv had them when this page was made. ${titled(BETTER)}.`
    : "Nothing of this run has been submitted yet. After `comp submit`, `comp report` shows its scores here.";
  const gap = row => (row.private ?? row.public) === null || row.cross_fitted === null ? null : (row.private ?? row.public) - row.cross_fitted;
  if (rows.length) byId("submissions-table").append(table([
    ["submission", row => row.name, row => row.name, "text"],
    ["written (UTC)", row => row.time.slice(0, 16).replace("T", " "), row => row.time, "text"],
    ["cross-fitted", row => four(row.cross_fitted), row => row.cross_fitted],
    ["public", row => row.public === null ? "–" : row.public.toFixed(5), row => row.public],
    ["private", row => row.private === null ? "–" : row.private.toFixed(5), row => row.private],
    ["leaderboard − cross-fitted", row => gap(row) === null ? "–" : (gap(row) < 0 ? "−" : "+") + four(Math.abs(gap(row))), gap],
    ["status", row => row.status || (row.public === null ? "written" : "scored here"), row => row.status, "text"],
    ...(rows.some(row => row.message) ? [["message", row => row.message, row => row.message, "text"]] : []),
  ], rows, "Submissions of this run"));
  const SCORES = [["cross-fitted", "cross_fitted", "var(--c0)"], ["public", "public", "var(--c1)"], ["private", "private", "var(--c2)"]];
  const all = SCORES.flatMap(([, key]) => scored.map(row => row[key])).filter(v => v !== null), room = (Math.max(...all) - Math.min(...all)) * .1 || .01;
  const inOrder = [...scored].reverse();
  if (scored.length > 1) byId("submissions-chart").append(chart({
    title: "Scores of the submissions, in order", whole: true, x: [1, inOrder.length, "submission"], y: [Math.min(...all) - room, Math.max(...all) + room, data.metric],
    about: "Scores of the submissions: " + inOrder.map(row => SCORES.map(([name, key]) => `${name} ${four(row[key])}`).join(", ")).join("; "),
    lines: SCORES.map(([, key, paint]) => ({ points: inOrder.map((row, i) => [i + 1, row[key], `${row.name}: ${four(row[key])}`]), colour: paint, dots: true })),
    legend: SCORES.map(([name, , paint]) => [name, paint]),
  }));
}
