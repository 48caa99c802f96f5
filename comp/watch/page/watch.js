/* What the page shows of the runs: `news` lists them, `known` has the details of some by name. */

let news = { runs: [], expected: [], problems: [] };
const known = {};
const place = new URLSearchParams(location.hash.slice(1)); // what is chosen, kept in the address
let ahead = 0; // milliseconds that the server's clock is ahead of this one

const STATES = { training: "training", stopped: "stopped", waiting: "not begun", trained: "trained" };
const TITLES = { loss: "Training loss", valid_loss: "Held-out loss", mAP: "Held-out mAP" };
const now = () => (Date.now() + ahead) / 1000;
const mean = values => values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
const has = value => value !== null && value !== undefined;
const watched = () => news.runs.filter(run => run.watched);
const latest = fold => fold.rows.at(-1);
const when = seconds => new Date(seconds * 1000 - ahead).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

function keep(key, value) {
  value === "" ? place.delete(key) : place.set(key, value);
  history.replaceState(null, "", "#" + place);
}

/* Texts that go on counting: an element with the seconds since or until a moment */
const until = ends => element("span", { "data-until": ends }, left(ends));
const left = ends => !has(ends) ? "–" : ends - now() > 1 ? clock(ends - now()) : "any moment";
const since = written => element("span", { "data-since": written }, ago(written));
const ago = written => !has(written) ? "–" : now() - written < 100 ? `${Math.max(0, Math.round(now() - written))} s ago` : now() - written < 86400 ? `${clock(now() - written)} ago` : when(written);
function countOn() {
  for (const one of document.querySelectorAll("[data-until]")) setText(one, left(Number(one.dataset.until)));
  for (const one of document.querySelectorAll("[data-since]")) setText(one, ago(Number(one.dataset.since)));
}
function setText(one, text) { if (one.textContent !== text) one.textContent = text; }

/* A select with these [value, text]; its choice stays where it can */
function options(id, list, chosen) {
  const select = byId(id), wanted = JSON.stringify(list);
  if (select.dataset.options !== wanted) {
    select.dataset.options = wanted;
    select.replaceChildren(...list.map(([value, text]) => element("option", { value }, text)));
  }
  select.value = list.some(([value]) => value === chosen) ? chosen : list[0][0];
  return select.value;
}

/* A table in place of the last one; what has the keyboard keeps it, and the table its place */
function put(id, made) {
  const box = byId(id), old = box.firstElementChild, focused = box.contains(document.activeElement) ? document.activeElement.id : "";
  made.id = id + "-box";
  box.replaceChildren(made);
  if (old) made.scrollLeft = old.scrollLeft;
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

function chosenRun() {
  const list = watched();
  return list.find(run => run.name === place.get("run")) || list.find(run => run.state === "training") || list[0];
}

/* Runs that share the competition and the metric */
const comparable = run => news.runs.filter(other => other.name !== run.name && other.epochs && String(other.task) === String(run.task));
function comparedRun(run) {
  const others = comparable(run), name = place.get("compare");
  return name === "none" ? null : others.find(other => other.name === name) || others.find(other => other.begun < run.begun) || null;
}

function show() {
  const run = chosenRun();
  showRuns(run);
  const details = run && known[run.name];
  for (const id of ["run", "curves", "compared", "worst"]) byId(id).hidden = !details;
  if (!details) return;
  const other = comparedRun(run), theirs = other && known[other.name];
  showRun(run, details);
  showCurves(run, details, theirs);
  showCompared(details, theirs);
  showWorst(run, details);
}

function showRuns(chosen) {
  const list = watched();
  const expected = news.expected.length ? ` Not begun: ${listed(news.expected)}.` : "";
  byId("runs-about").replaceChildren(list.length ? "" : "No run is there yet; this page shows them as soon as they begin.", expected, ...news.problems.map(text => element("span", { class: "warning" }, ` ${text}`)));
  if (!list.length) { byId("runs-table").replaceChildren(); return; }
  const tasks = new Set(list.map(run => String(run.task)));
  put("runs-table", table([
    ["run", run => element("button", { id: `run-${run.name}`, type: "button", "aria-pressed": String(run === chosen), onclick: () => { keep("run", run.name); refresh(); } }, run.name)],
    ["state", run => element("span", { class: run.state === "training" ? "now" : null }, STATES[run.state]), "text"],
    ["time left", run => run.state === "training" ? until(run.ends) : "–"],
    ["folds trained", run => `${run.n_trained} of ${run.n_networks}`],
    ["epochs", run => `${count(run.epochs)} of ${count(run.n_epochs)}`],
    ["held-out score", run => `${run.title} ${four(run.score)}`],
    ["cross-fitted", run => four(run.decided)],
    ["begun", run => when(run.begun)],
    ["network", run => run.about, "text"],
    ["competition, metric", run => run.task.join(", "), "text"],
  ].filter(([title]) => title !== "competition, metric" || tasks.size > 1).map(([title, text, kind]) => [title, text, null, kind]), list, "Runs"));
}

function tile(title, value, ...about) {
  return element("div", { class: "tile" }, element("p", {}, title), element("strong", {}, value), ...about.map(text => element("p", {}, text)));
}

/* The share of the bare step that training reaches, by fold: its last epoch */
const bareRate = (details, row) => details.bare?.rates[row.size];
function shareOfBare(details, fold) {
  const row = latest(fold), bare = row && bareRate(details, row);
  return bare ? row.images_per_second / bare : null;
}

function showRun(run, details) {
  const folds = details.folds, rows = folds.map(latest).filter(Boolean), busy = folds.filter(fold => fold.state === "training");
  byId("run-title").textContent = run.name;
  byId("run-about").textContent = `${run.task.join(", ")}. ${run.about}; ${details.phases.map(phase => `${several(phase.epochs, "epoch")} at ${phase.size} px, batch ${phase.batch_size}`).join(", then ")}. Begun ${when(run.begun)}.`;
  const running = busy.map(latest).filter(Boolean), active = running.length ? running : rows;
  const shares = (running.length ? busy : folds).map(fold => shareOfBare(details, fold)).filter(has);
  const speed = details.bare
    ? [shares.length ? `${percent(mean(shares), 0)} of the bare step (${details.bare.machine}${details.bare.at_once > 1 ? `, which ${details.bare.at_once} networks share` : ""})` : "the bare step was not measured at this size and batch"]
    : [`comp bench speed ${run.name} measures the bare step to compare with`];
  const bar = element("div", { class: "done", role: "img", "aria-label": `${percent(run.epochs / run.n_epochs, 0)} done` }, element("i", { style: `width: ${100 * run.epochs / run.n_epochs}%` }));
  const stages = [`${run.n_trained} of ${several(run.n_networks, "network")} trained`];
  if (run.n_predicted) stages.push(`${run.n_predicted} predicted`);
  if (has(run.decided)) stages.push("decided");
  byId("tiles").replaceChildren(
    tile(STATES[run.state] + (busy.length ? `: ${listed(busy.map(fold => fold.name))}` : ""), element("span", {}, count(run.epochs), element("small", {}, ` of ${several(run.n_epochs, "epoch")}`)), bar, stages.join(", ")),
    run.state === "trained" ? tile("time, all folds", clock(d3.sum(folds, fold => d3.sum(fold.rows, row => row.seconds))), "of all epochs, summed")
      : tile("time left, all folds", run.state === "training" ? until(run.ends) : "–",
      run.state === "training" && has(run.ends) ? `trained about ${when(run.ends)}, by the pace so far` : run.state === "training" ? "known after an epoch" : run.state === "stopped" ? "no news for long: the training was stopped, or its machine" : ""),
    tile(`held-out ${run.title}, last epochs`, four(run.score), `mean of ${several(rows.length, "fold")}`, details.fitted ? "one threshold, fitted on these images: optimistic" : "", has(run.decided) ? `cross-fitted by comp decide: ${four(run.decided)}` : ""),
    tile("images per second", active.length ? num(active.reduce((sum, row) => sum + row.images_per_second, 0) / (running.length ? 1 : active.length)) : "–", running.length > 1 ? `${running.length} folds side by side` : "one fold", ...speed),
    tile("memory", active.length ? bytes(Math.max(...active.map(row => row.memory))) : "–", "the most of a network"),
  );
  const metric = details.columns.keys.at(-1);
  put("folds-table", table([
    ["network", fold => fold.name],
    ["state", fold => element("span", { class: fold.state === "training" ? "now" : null }, STATES[fold.state]), "text"],
    ["epoch", fold => `${fold.rows.length} of ${run.n_epochs / run.n_networks}`],
    ["time left", fold => fold.state === "training" ? until(fold.ends) : "–"],
    ["last news", fold => since(fold.written)],
    ["px", fold => latest(fold)?.size ?? "–"],
    ["loss", fold => four(latest(fold)?.loss)],
    ["held-out loss", fold => four(latest(fold)?.valid_loss)],
    [`held-out ${details.columns.title}`, fold => four(latest(fold)?.[metric])],
    ["images/s", fold => num(latest(fold)?.images_per_second)],
    ["of bare step", fold => { const share = shareOfBare(details, fold); return share === null ? "–" : percent(share, 0); }],
    ["an epoch takes", fold => latest(fold) ? clock(latest(fold).seconds) : "–"],
    ...(folds.some(fold => fold.damaged) ? [["damaged lines", fold => count(fold.damaged)]] : []),
  ].filter(([title]) => title !== "of bare step" || details.bare).map(([title, text, kind]) => [title, text, null, kind]), folds, `Networks of ${run.name}`));
}

function phasesOf(details) {
  let from = .5;
  return details.phases.map(phase => { const found = { from, text: `${phase.size} px` }; from += phase.epochs; return found; });
}
const epochsOf = details => details.phases.reduce((sum, phase) => sum + phase.epochs, 0);

function showCurves(run, details, theirs) {
  const others = comparable(run);
  options("compare", [["none", "no other run"], ...others.map(other => [other.name, `${other.name} (${when(other.begun)})`])], theirs?.name || "none");
  byId("compare-label").hidden = !others.length;
  const folds = details.folds.map((fold, i) => ({ ...fold, colour: colour(i) })).filter(fold => fold.rows.length);
  byId("curves-about").textContent = folds.length
    ? `One colour is one network; vertical lines begin a phase.${theirs ? ` Dashed: ${theirs.name}, the same folds.` : ""}`
    : "The first epoch has not ended yet.";
  byId("legend").replaceChildren(...folds.map(fold => element("li", {}, element("i", { style: `border-color: ${fold.colour}` }), fold.name)),
    ...(theirs ? [element("li", { class: "other" }, element("i", { style: "border-color: var(--quiet)" }), theirs.name)] : []));
  const phases = phasesOf(details), n = Math.max(epochsOf(details), theirs ? Math.max(0, ...theirs.folds.map(fold => fold.rows.length)) : 0);
  const points = (rows, key) => rows.filter(row => has(row[key])).map(row => ({ x: row.epoch, y: row[key] }));
  const linesOf = key => [
    ...(theirs ? theirs.folds.map((fold, i) => ({ name: `${theirs.name}, ${fold.name}`, colour: colour(i), points: points(fold.rows, key), other: true })) : []),
    ...folds.map(fold => ({ name: fold.name, colour: fold.colour, points: points(fold.rows, key) })),
  ];
  const drawn = (title, key, text, zero = false, more = []) => {
    const lines = [...linesOf(key), ...more];
    if (!lines.some(line => line.points.length)) return null;
    const ends = folds.filter(fold => has(latest(fold)[key])).map(fold => `${fold.name} ${text(latest(fold)[key])}`);
    return curves({ title, about: `${title} by epoch; last: ${ends.join(", ")}`, lines, phases, n, text, zero });
  };
  const keys = ["loss", ...details.columns.keys], metric = details.columns.keys.at(-1);
  const charts = keys.map(key => drawn(key === metric ? `Held-out ${details.columns.title}` : TITLES[key] || `Held-out ${key}`, key, num));
  if (folds.length) charts.push(rateChart(details, folds, phases, n));
  const bare = details.bare && phases.flatMap((phase, i) => {
    const rate = details.bare.rates[details.phases[i].size];
    return rate ? [{ name: `bare step at ${phase.text}`, colour: "var(--quiet)", dash: true, smooth: true, points: [{ x: phase.from, y: rate }, { x: phase.from + details.phases[i].epochs, y: rate }] }] : [];
  });
  charts.push(drawn(bare?.length ? "Images per second; grey: the bare step" : "Images per second", "images_per_second", num, true, bare || []), drawn("Memory", "memory", bytes, true));
  byId("charts").replaceChildren(...charts.filter(Boolean));
}

/* Learning rates as planned; where the user's own function makes them, as they were */
function rateChart(details, folds, phases, n) {
  const text = rate => rate ? d3.format(".1~e")(rate) : "0";
  const alike = details.plan.every(point => point[1] === point[2]);
  const plan = [["head", 1, "var(--c0)"], ...(alike ? [] : [["other layers", 2, "var(--c1)"]])].map(([name, at, paint]) => ({
    name, colour: paint, smooth: true, dash: at === 2, points: details.plan.map(point => ({ x: point[0] + .5, y: point[at] })),
  })).filter(line => line.points.some(point => point.y !== null));
  const ran = { name: "head, at the end of an epoch", colour: "var(--c0)", dotted: true, points: d3.greatest(folds, fold => fold.rows.length).rows.map(row => ({ x: row.epoch + .5, y: row.lr })) };
  const lines = [...plan, ran], title = `Learning rate${plan.length > 1 ? ": head, and dashed the other layers" : ""}; dots: so far`;
  return curves({ title, about: `${title}; highest ${text(Math.max(...lines.flatMap(line => line.points.map(point => point.y ?? 0))))}`, lines, phases, n, text, zero: true });
}

function showCompared(details, theirs) {
  byId("compared").hidden = !theirs;
  if (!theirs) return;
  const metric = details.columns.keys.at(-1), better = details.columns.sign;
  const rows = details.folds.flatMap((fold, i) => {
    const other = theirs.folds[i];
    const epoch = other ? Math.min(fold.rows.length, other.rows.length) : 0;
    if (!epoch) return [];
    const [mine, its] = [fold.rows[epoch - 1], other.rows[epoch - 1]];
    return [{ name: fold.name, epoch, mine: mine[metric], its: its[metric], sizes: [mine.size, its.size], losses: [mine.valid_loss, its.valid_loss], last: latest(other)[metric], n: other.rows.length }];
  });
  const scored = rows.filter(row => has(row.mine) && has(row.its));
  if (scored.length > 1) rows.push({ name: "mean", epoch: null, mine: mean(scored.map(row => row.mine)), its: mean(scored.map(row => row.its)), last: mean(scored.map(row => row.last)) });
  byId("compared-title").textContent = `Beside ${theirs.name}, at the same epoch`;
  byId("compared-about").textContent = rows.length
    ? `Held-out ${details.columns.title}, ${better > 0 ? "higher" : "lower"} is better. The folds have the same images if both runs have the same folds and seed.`
    : "The two runs have no epoch of the same fold in common yet.";
  const both = (pair, text) => !pair ? "–" : pair[0] === pair[1] ? text(pair[0]) : pair.map(text).join(" and ");
  if (!rows.length) { byId("compared-table").replaceChildren(); return; }
  put("compared-table", table([
    ["network", row => row.name],
    ["epoch", row => row.epoch ?? "–"],
    ["px", row => both(row.sizes, String)],
    [details.name, row => four(row.mine)],
    [theirs.name, row => four(row.its)],
    ["difference", row => {
      if (!has(row.mine) || !has(row.its)) return "–";
      const gain = row.mine - row.its;
      return element("span", { class: gain * better > 0 ? "good" : gain * better < 0 ? "miss" : null }, (gain >= 0 ? "+" : "−") + four(Math.abs(gain)));
    }],
    ["held-out losses", row => row.losses ? row.losses.map(four).join(" and ") : "–"],
    [`${theirs.name} at its last epoch`, row => four(row.last)],
  ].map(([title, text]) => [title, text]), rows, `Beside ${theirs.name}`));
}

function showWorst(run, details) {
  const seen = details.folds.filter(fold => fold.rows.some(row => row.worst.length));
  byId("worst").hidden = !seen.length;
  if (!seen.length) return;
  const name = options("worst-fold", [["", "all"], ...seen.map(fold => [fold.name, fold.name])], place.get("fold") || "");
  const folds = seen.filter(fold => !name || fold.name === name);
  const epochs = [...new Set(folds.flatMap(fold => fold.rows.filter(row => row.worst.length).map(row => row.epoch)))].sort((a, b) => b - a);
  const epoch = options("worst-epoch", [["", "the last"], ...epochs.map(value => [String(value), String(value)])], place.get("epoch") || "");
  const cards = folds.flatMap(fold => {
    const at = epoch ? fold.rows.findIndex(row => String(row.epoch) === epoch) : fold.rows.length - 1;
    return (fold.rows[at]?.worst || []).map(image => {
      let times = 0;
      while (fold.rows[at - times]?.worst.some(other => other.id === image.id)) times++;
      return { ...image, fold: fold.name, times };
    });
  }).sort((a, b) => b.loss - a.loss);
  byId("worst-about").textContent = `The held-out images with the highest loss${epoch ? ` after epoch ${epoch}` : " after the last epoch of each fold"}.${details.numbers ? "" : " Below each: the labels that cost most, and the network's probability."} An image that stays here epoch after epoch may have a wrong label.`;
  const answer = ([label, truth, p]) => details.numbers ? element("span", {}, `${label} ${num(truth)}, predicted ${num(p)}`)
    : element("span", { class: truth >= .5 === p >= .5 ? null : truth >= .5 ? "miss" : "alarm" }, `${label} ${truth >= .5 ? "" : "not "}given, ${percent(p, 0).replace(" ", "\u00a0")}`);
  const made = JSON.stringify([run.name, cards]);
  if (byId("gallery").dataset.made === made) return;
  byId("gallery").dataset.made = made;
  byId("gallery").replaceChildren(...cards.map(image => {
    const source = picture(run.name, image.id);
    return element("li", {}, source ? element("img", { src: source, alt: "", loading: "lazy", width: 160, height: 160 }) : null,
      element("strong", {}, image.id), element("span", { class: "quiet" }, `${image.fold}, loss ${num(image.loss)}${image.times > 1 ? `, ${image.times} epochs in a row` : ""}`),
      ...image.answers.map(answer));
  }));
}

for (const [id, key] of [["compare", "compare"], ["worst-fold", "fold"], ["worst-epoch", "epoch"]]) {
  byId(id).addEventListener("change", () => { keep(key, byId(id).value); refresh(); });
}
