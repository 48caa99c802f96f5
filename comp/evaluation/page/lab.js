/* The threshold lab: sliders, and the score of the whole set at once. It needs base.js and `data` alone; what data.lab
   holds is said in comp/evaluation/report_lab.py. */

const labMath = {
  TINY: 1e-15,  // probabilities are clipped to it before their logits are compared, as in comp.decisions.calibration

  logit(p) {
    const x = Math.min(Math.max(p, this.TINY), 1 - this.TINY);
    return Math.log(x) - Math.log1p(-x);
  },

  /* The rising thresholds that a label's slider offers */
  offered(chosen, low, top) {
    const first = Math.round(low * 1000), steps = Array.from({ length: Math.round(top * 1000) - first + 1 }, (_, k) => (first + k) / 1000);
    return steps.includes(chosen) ? steps : [...steps, chosen].sort((a, b) => a - b);
  },

  /* How many of the rising numbers are below a value */
  below(edges, value) {
    let low = 0, high = edges.length;
    while (low < high) { const middle = (low + high) >> 1; if (edges[middle] < value) low = middle + 1; else high = middle; }
    return low;
  },

  nearest(edges, value) {
    const place = Math.min(this.below(edges, value), edges.length - 1);
    return place > 0 && value - edges[place - 1] <= edges[place] - value ? place - 1 : place;
  },

  fbeta: (beta, hits, given, n, empty = 0) => {
    const below = given + beta * beta * n;
    return below ? (1 + beta * beta) * hits / below : empty;
  },

  async unpack(text) {
    const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  },
};

/* The rows of all labels, decided by thresholds. A move changes the rows whose decision flips, and then sums over rows. */
class LabLabels {
  constructor(lab, bytes) {
    const n = this.n = lab.n_rows, C = this.C = lab.chosen.length, size = n * C;
    Object.assign(this, { metric: lab.metric, groups: lab.groups });
    const cells = bytes.subarray(2 * size, 3 * size), planes = bytes.subarray(3 * size), many = planes.length / 4, bits = new DataView(new ArrayBuffer(4));
    this.truth = cells.map(cell => cell & 3);  // of each label the rows: 0, 1, or 2 where it is unknown
    this.edges = lab.chosen.map(chosen => labMath.offered(chosen, lab.low, lab.top));
    const level = new Uint16Array(size), logits = new Float64Array(size);
    for (let i = 0, k = 0; i < size; i++) {
      level[i] = bytes[i] | bytes[size + i] << 8;
      if (!(cells[i] & 4)) continue;
      for (let byte = 0; byte < 4; byte++) bits.setUint8(byte, planes[byte * many + k]);
      k++;
      const p = bits.getFloat32(0, true);
      logits[i] = labMath.logit(p);
      level[i] = labMath.below(this.edges[Math.floor(i / n)], p);
    }
    this.order = new Uint32Array(size);  // the rows of each label by level
    this.first = this.edges.map((edges, c) => {  // where each level begins
      const first = new Uint32Array(edges.length + 2);
      for (let row = 0; row < n; row++) first[level[c * n + row] + 1]++;
      for (let k = 1; k < first.length; k++) first[k] += first[k - 1];
      const next = first.slice();
      for (let row = 0; row < n; row++) this.order[c * n + next[level[c * n + row]]++] = row;
      return first;
    });
    this.labels = lab.chosen.map((_, c) => c);
    this.groupOf = this.labels.map(c => lab.groups.findIndex(group => group.includes(c)));
    /* Where labels are compared: of each row those that can be the first, and the one that is; none where a label is given anyway */
    const contest = members => {
      const start = new Uint32Array(n + 1), label = [], logit = [];
      for (let row = 0; row < n; row++) {
        for (const c of members) if (cells[c * n + row] & 12) { label.push(c); logit.push(logits[c * n + row]); }
        start[row + 1] = label.length;
      }
      return { start, label: Uint16Array.from(label), logit: Float64Array.from(logit), winner: new Int32Array(n).fill(-1) };
    };
    this.contests = lab.groups.length ? lab.groups.map(contest) : lab.min_labels ? [contest(this.labels)] : [];
    this.at = this.edges.map(edges => edges.length);  // the place of each threshold; at first no label is given
    this.cuts = new Float64Array(C);  // logits of the thresholds
    this.above = new Uint16Array(n);  // labels of each row above their thresholds, known or not
    this.given = new Uint16Array(n);
    this.hits = new Uint16Array(n);
    this.nTrue = new Uint16Array(n);
    this.labelGiven = new Float64Array(C);
    this.labelHits = new Float64Array(C);
    this.labelTrue = new Float64Array(C);
    for (let c = 0; c < C; c++) for (let row = 0; row < n; row++) if (this.truth[c * n + row] === 1) { this.nTrue[row]++; this.labelTrue[c]++; }
    this.moveAll(this.edges.map((edges, c) => edges.indexOf(lab.chosen[c])));
  }

  threshold(c) { return this.edges[c][this.at[c]]; }

  give(row, c, sign) {
    const truth = c < 0 ? 2 : this.truth[c * this.n + row];
    if (truth === 2) return;
    this.given[row] += sign; this.labelGiven[c] += sign;
    if (truth) { this.hits[row] += sign; this.labelHits[c] += sign; }
  }

  move(c, place) {
    if (place === this.at[c]) return;
    this.flip(c, place);
    this.compare(this.groupOf[c]);
  }

  moveAll(places) {
    places.forEach((place, c) => this.flip(c, place));
    this.compare(-1);
  }

  /* Rows of levels between the two places change sides. A row's label is given where its level is above the place. */
  flip(c, place) {
    const before = this.at[c], sign = place < before ? 1 : -1, first = this.first[c], base = c * this.n;
    this.at[c] = place;
    this.cuts[c] = labMath.logit(this.edges[c][place]);
    if (this.groupOf[c] >= 0) return;
    const from = first[Math.min(place, before) + 1], to = first[Math.max(place, before) + 1];
    for (let i = from; i < to; i++) { const row = this.order[base + i]; this.above[row] += sign; this.give(row, c, sign); }
  }

  /* Compare the labels of a group, or of each one where it is -1 */
  compare(group) {
    this.contests.forEach(({ start, label, logit, winner }, g) => {
      if (group >= 0 && g !== group) return;
      for (let row = 0; row < this.n; row++) {
        let best = -1, most = -Infinity;
        if (this.groups.length || !this.above[row]) for (let i = start[row]; i < start[row + 1]; i++) {
          const margin = logit[i] - this.cuts[label[i]];
          if (margin > most) { most = margin; best = label[i]; }
        }
        if (best !== winner[row]) { this.give(row, winner[row], -1); this.give(row, best, 1); winner[row] = best; }
      }
    });
  }

  scoreOf(c) {
    const { name, beta } = this.metric || {};
    return labMath.fbeta(name === "fbeta" ? beta : 1, this.labelHits[c], this.labelGiven[c], this.labelTrue[c]);
  }

  /* The score of all rows; null where the page can't compute the metric */
  score() {
    if (!this.metric) return null;
    const { name, beta, average, empty } = this.metric, { n, C, hits, given, nTrue, labelHits, labelGiven, labelTrue } = this;
    const sum = values => values.reduce((a, b) => a + b, 0);
    if (name === "balanced_accuracy") {
      const there = this.labels.filter(c => labelTrue[c]);
      return sum(there.map(c => labelHits[c] / labelTrue[c])) / there.length;
    }
    if (average === "macro") return sum(this.labels.map(c => this.scoreOf(c))) / C;
    if (average === "micro") return labMath.fbeta(beta, sum(labelHits), sum(labelGiven), sum(labelTrue));
    let total = 0;
    for (let row = 0; row < n; row++) total += labMath.fbeta(beta, hits[row], given[row], nTrue[row], empty);
    return total / n;
  }

  get labelsAnImage() { return this.labelGiven.reduce((a, b) => a + b, 0) / this.n; }

  /* How many images with and without the label are in each of `many` bars of equal width */
  bars(c, many) {
    const edges = this.edges[c], found = [new Uint32Array(many), new Uint32Array(many)];
    for (let level = 0; level <= edges.length; level++) {
      const bar = Math.min(many - 1, Math.floor((level ? edges[level - 1] : 0) * many + 1e-9));
      for (let i = this.first[c][level]; i < this.first[c][level + 1]; i++) {
        const truth = this.truth[c * this.n + this.order[c * this.n + i]];
        if (truth < 2) found[1 - truth][bar]++;
      }
    }
    return found;
  }
}

/* Grades by cut points, from how many images of each true grade (rows) have each level */
class LabGrades {
  constructor(lab) {
    Object.assign(this, { metric: lab.metric, counts: lab.counts, edges: lab.edges, n: lab.counts.length });
    this.at = lab.chosen.map(cut => lab.edges.indexOf(cut));
    this.nAll = lab.counts.flat().reduce((a, b) => a + b, 0);
  }

  /* How many images of each true grade (rows) are given each grade (columns) */
  confusion() {
    return this.counts.map(row => {
      const found = new Array(this.n).fill(0);
      let grade = 0;
      row.forEach((many, level) => { while (grade < this.at.length && level > this.at[grade]) grade++; found[grade] += many; });
      return found;
    });
  }

  score(confusion) {
    if (!this.metric) return null;
    const n = this.n, of = [...Array(n).keys()], total = values => values.reduce((a, b) => a + b, 0);
    const rows = confusion.map(total), columns = of.map(j => total(confusion.map(row => row[j])));
    if (Math.max(...rows) === this.nAll && Math.max(...columns) === this.nAll) return Number(rows.indexOf(this.nAll) === columns.indexOf(this.nAll));
    let wrong = 0, byChance = 0;
    for (const i of of) for (const j of of) { wrong += (i - j) ** 2 * confusion[i][j]; byChance += (i - j) ** 2 * rows[i] * columns[j]; }
    return 1 - wrong * this.nAll / byChance;
  }
}

/* A text as TOML has it in quotes; what can't be seen is written as \u…. */
const tomlText = text => JSON.stringify(text).replace(/[\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/g, c => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const tomlNumber = x => Number.isInteger(x) ? x + ".0" : String(x);

/* The parts that the labs of labels and of grades share: the bar with the score, the buttons, the TOML. `toml` returns the
   text of a file, `moved` what is said aloud. */
function labFrame(lab, { toml, reset, half, halfText, extra = [] }) {
  const score = element("strong", { id: "lab-score" }), against = element("span"), more = element("span", { class: "quiet" });
  const said = element("span", { class: "unseen", role: "status" });
  const area = element("textarea", { id: "lab-text", readonly: true, rows: 8, spellcheck: "false", "aria-label": "The values as TOML" });
  const file = `${data.name}-thresholds.toml`, link = element("a", { download: file, href: "data:," }, `Download ${file}`);
  const copied = element("span", { role: "status" });
  const write = () => { area.value = toml(); link.href = "data:application/toml;charset=utf-8," + encodeURIComponent(area.value); };
  const text = element("details", { id: "lab-toml", ontoggle: () => text.open && write() }, element("summary", {}, "The values as TOML"),
    element("p", {}, "Save the text as a file. ", element("code", {}, `comp decide ${data.name} --thresholds FILE --force`),
      " then decides the test images by it, and calls its score in-sample."), area, element("p", {}, link));
  const copy = async () => {
    write();
    text.open = true;
    copied.textContent = "";
    try {
      await navigator.clipboard.writeText(area.value);
      copied.textContent = "Copied.";
    } catch {
      area.focus();
      area.select();
      copied.textContent = "This browser does not let the page copy. The text below is selected: press Ctrl+C, or download it.";
    }
  };
  const button = (words, onclick, id) => element("button", { type: "button", onclick, id }, words);
  const bar = element("div", { class: "lab-bar" },
    element("p", { class: "lab-score" }, element("span", {}, `${data.metric} `), score, " ", element("span", { class: "warning" }, "in-sample"), " ", against, " ", more, said),
    element("div", { class: "controls" }, ...extra, button(lab.is_chosen ? "As chosen" : "As at the start", reset, "lab-reset"), button(halfText, half, "lab-half"),
      button("Copy as TOML", copy, "lab-copy"), copied));
  let timer;
  return {
    bar, text,
    show(value, quiet, aloud) {
      const gain = value - lab.cross_fitted, words = value === null ? "is not computed here" : four(value);
      score.textContent = words;
      score.dataset.value = value === null ? "" : String(value);
      against.textContent = value === null ? `cross-fitted ${four(lab.cross_fitted)}` : `${gain < 0 ? "−" : "+"}${four(Math.abs(gain))} to the cross-fitted ${four(lab.cross_fitted)}`;
      more.textContent = quiet;
      clearTimeout(timer);
      timer = setTimeout(() => { said.textContent = aloud ? `${aloud}; ${data.metric} ${words} in-sample` : ""; if (text.open) write(); }, 700);
    },
  };
}

/* A chart by Plot as one picture with a text, for screen readers */
function labPlot(about, options) {
  const svg = Plot.plot(options);
  for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", about);
  return svg;
}

const LAB_BARS = 50, LAB_SHOWN = 24;

function labOfLabels(lab, bytes) {
  const rows = new LabLabels(lab, bytes), { C } = rows, F = `F${lab.metric?.name === "fbeta" ? lab.metric.beta : 1}`;
  const single = lab.groups.length === 1 && lab.groups[0].length === C, sampled = lab.n_rows < lab.n_all;
  const named = c => data.classes[c].name, shown = t => String(Number(t.toFixed(4)));
  byId("lab-about").append(
    `What other thresholds would give, on ${sampled ? `${count(lab.n_rows)} of the ${count(lab.n_all)} held-out images, drawn at random` : "all held-out images"}. ` +
    (lab.is_chosen ? "" : `The rule “${data.rule}” is not of thresholds alone, so here they start at ${new Set(lab.chosen).size === 1 ? "the best single one" : "those that it begins with"}. `) +
    (single ? "The answer is the label whose probability is the furthest above its threshold, in logits: a lower threshold gives a label more often. "
      : lab.groups.length ? `Of ${lab.groups.map(group => group.map(named).join(", ")).join("; and of ")} the one that is the furthest above its threshold, in logits, is given; every other label where its probability is above its threshold. `
      : `A label is given where its probability is above its threshold${lab.min_labels ? "; an image with none gets the one that is nearest, in logits" : ""}. `),
    element("strong", {}, "What is dragged here is in-sample: "),
    "you see the rows that it is scored on, so the score is better than on new images. The cross-fitted score is the honest one.");
  const figures = new Map(), all = element("input", { type: "range", min: lab.low, max: lab.top, step: .001, "aria-label": "threshold of all labels", id: "lab-all" });
  const frame = labFrame(lab, {
    toml, halfText: "0.5 for all", reset: () => every(c => lab.chosen[c], "as chosen"), half: () => every(() => .5, "0.5 for all labels"),
    extra: C > 1 ? [element("label", {}, "all labels ", all)] : [],
  });

  function toml() {
    const value = rows.score();
    return [
      `# Thresholds of ${JSON.stringify(data.name)}, for: comp decide ${JSON.stringify(data.name)} --thresholds FILE`,
      `# They were set by someone who saw the held-out images${value === null ? "" : `, so their ${data.metric}, ${value.toFixed(6)}, is in-sample`}.`,
      ...(lab.groups.length ? ["exclusive = true"] : []), "", "[thresholds]",
      ...lab.names.map((name, c) => `${tomlText(name)} = ${tomlNumber(rows.threshold(c))}`), "",
    ].join("\n");
  }

  function refresh(aloud, only = null) {
    if (only !== null && !rows.contests.length) figures.get(only)?.update();
    else for (const figure of visible) figures.get(figure).update();
    frame.show(rows.score(), `${rows.labelsAnImage.toFixed(2)} labels an image`, aloud);
  }

  function every(value, aloud) {
    rows.moveAll(rows.edges.map((edges, c) => labMath.nearest(edges, value(c))));
    if (new Set(rows.at.map((_, c) => rows.threshold(c))).size === 1) { all.value = rows.threshold(0); all.setAttribute("aria-valuetext", shown(rows.threshold(0))); }
    refresh(aloud);
  }
  all.addEventListener("input", () => every(() => Number(all.value), `all thresholds ${all.value}`));

  function draw(c) {
    const [there, without] = rows.bars(c, LAB_BARS), height = 104;
    /* Each outline twice, in the colours of both sides of the threshold, which cuts off one of the two */
    const outline = (counts, sign) => [...counts, counts.at(-1)].map((many, i) => ({ x: i / LAB_BARS, y: sign * Math.sqrt(many) }));
    const parts = [["hit", outline(there, 1)], ["miss", outline(there, 1)], ["alarm", outline(without, -1)], ["rest", outline(without, -1)]], width = 280;
    const most = [Math.max(1, ...there), Math.max(1, ...without)];
    const svg = labPlot(`Out-of-fold probabilities of ${named(c)}: ${count(rows.labelTrue[c])} images with the label above the line, those without it below`, {
      width, height, margin: 0, marginBottom: 16, marginTop: 10, x: { domain: [0, 1] }, y: { domain: [-Math.sqrt(most[1]), Math.sqrt(most[0])], axis: null },
      marks: [
        ...parts.map(([, points]) => Plot.areaY(points, { x: "x", y1: 0, y2: "y", curve: "step-after" })), Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleX(data.classes[c].by_fold || [], { stroke: "var(--c1)", strokeOpacity: .35 }),
        Plot.axisX([0, .2, .4, .6, .8, 1], { anchor: "bottom", tickSize: 0, tickPadding: 4, label: null, tickFormat: String }),
      ],
    });
    const sides = [width, 0].map(x => svgElement("rect", { x, y: -height, width: 2 * width, height: 3 * height }));
    svg.append(...sides.map((side, i) => svgElement("clipPath", { id: `lab-side-${c}-${i}` }, side)));
    [...svg.querySelectorAll("path")].slice(0, parts.length).forEach((path, i) => { path.dataset.kind = parts[i][0]; path.setAttribute("clip-path", `url(#lab-side-${c}-${i % 2})`); });
    const mark = element("i", { class: "lab-mark", "aria-hidden": "true" });
    const words = element("span", { class: "quiet" }), value = element("span", { class: "lab-value" }), input = element("input", { type: "range", min: lab.low, max: lab.top, step: .001, "aria-label": `threshold of ${named(c)}`, "data-label": c });
    const undo = element("button", { type: "button", "aria-label": `reset the threshold of ${named(c)}`, onclick: () => { set(lab.chosen[c]); input.focus(); } }, "reset");
    const set = value => { rows.move(c, labMath.nearest(rows.edges[c], value)); refresh(spoken(), c); };
    const spoken = () => `${named(c)} ${shown(rows.threshold(c))}: ${count(rows.labelTrue[c] - rows.labelHits[c])} missed, ${count(rows.labelGiven[c] - rows.labelHits[c])} false`;
    input.addEventListener("input", () => set(Number(input.value)));
    const figure = element("figure", { class: "lab-label" },
      element("figcaption", {}, named(c), value, undo),
      element("div", { class: "lab-plot" }, svg, mark), input, words,
      element("span", { class: "quiet lab-most" }, `${several(rows.labelTrue[c], "image")}; highest bars ${count(Math.max(...there))} and ${count(Math.max(...without))}`));
    input.style.width = `calc(${100 * (lab.top - lab.low)}% + 16px)`;
    input.style.marginLeft = `calc(${100 * lab.low}% - 8px)`;
    const update = () => {
      const t = rows.threshold(c), hits = rows.labelHits[c], given = rows.labelGiven[c], n = rows.labelTrue[c];
      input.value = t;
      input.setAttribute("aria-valuetext", shown(t));
      mark.style.left = 100 * t + "%";
      value.textContent = shown(t);
      words.textContent = `${F} ${rows.scoreOf(c).toFixed(4)} · ${count(n - hits)} missed · ${count(given - hits)} false`;
      undo.hidden = t === lab.chosen[c];
      sides[0].setAttribute("x", width * t);
      sides[1].setAttribute("x", width * (t - 2));
    };
    return { figure, update };
  }

  const worst = c => rows.labelTrue[c] ? rows.scoreOf(c) : 2, orders = {
    classes: () => 0, n: (a, b) => rows.labelTrue[b] - rows.labelTrue[a], f: (a, b) => worst(a) - worst(b), moved: (a, b) => Math.abs(rows.threshold(b) - lab.chosen[b]) - Math.abs(rows.threshold(a) - lab.chosen[a]),
  };
  const order = element("select", { id: "lab-order", onchange: () => fill() }, ...[["classes", "as listed"], ["n", "most images"], ["f", `lowest ${F}`], ["moved", "moved the most"]].map(([value, words]) => element("option", { value }, words)));
  const list = element("div", { class: "lab" }), more = element("button", { type: "button", id: "lab-more", onclick: () => fill(true) });
  let visible = [], sorted = [];
  order.value = C > LAB_SHOWN ? "n" : "classes";
  function fill(further = false) {
    const before = further ? visible.length : 0;
    if (!further) sorted = rows.labels.slice().sort(orders[order.value]);
    visible = sorted.slice(0, before + LAB_SHOWN);
    for (const c of visible) if (!figures.has(c)) figures.set(c, draw(c));
    list.replaceChildren(...visible.map(c => figures.get(c).figure));
    for (const c of visible) figures.get(c).update();
    more.textContent = `Show ${Math.min(LAB_SHOWN, C - visible.length)} more of ${count(C - visible.length)} labels`;
    more.hidden = visible.length === C;
    if (further) figures.get(visible[before]).figure.querySelector("input").focus();
  }
  const legend = element("ul", { class: "legend" }, ...[["hit", "with the label, found"], ["miss", "with it, missed"], ["alarm", "without it, false"], ["rest", "without it, rightly left out"]].map(([kind, words]) =>
    element("li", {}, element("b", { class: "lab-key", "data-kind": kind }), words)));
  byId("lab-body").append(frame.bar, legend,
    element("p", { class: "quiet" }, "Above the line are images with the label, below it those without. Heights are square roots of the numbers of images. " +
      (single || lab.groups.length || lab.min_labels ? "Colours go by the label's own threshold. " : "") + (data.classes.some(row => row.by_fold?.length) && !data.single ? "Thin lines are thresholds that were fitted without one fold." : "")),
    ...(C > 1 ? [element("div", { class: "controls" }, element("label", {}, "Order ", order))] : []), list, element("p", {}, more), frame.text);
  all.value = lab.chosen.slice().sort((a, b) => a - b)[C >> 1];
  fill();
  every(c => lab.chosen[c], "");
}

function labOfGrades(lab) {
  const grades = new LabGrades(lab), names = data.classes.map(row => row.name), high = lab.counts.length - 1;
  byId("lab-about").append(
    "What other cut points would give, on all held-out images. An image gets the grade between whose cut points its expected grade lies. " +
    (lab.is_chosen ? "" : `The rule “${data.rule}” has no cut points, so here they start in the middle. `),
    element("strong", {}, "What is dragged here is in-sample: "),
    "you see the rows that it is scored on, so the score is better than on new images. The cross-fitted score is the honest one.");
  const steps = 20, many = Math.round(high * steps);  // bars
  const bars = lab.counts.flatMap((counts, grade) => {
    const found = new Array(many).fill(0);
    counts.forEach((n, level) => found[Math.max(0, Math.min(many - 1, Math.floor((level ? lab.edges[level - 1] : 0) * steps + 1e-9)))] += n);
    return found.map((n, i) => ({ grade, x1: i / steps, x2: (i + .92) / steps, y: Math.sqrt(n) })).filter(bar => bar.y);
  });
  const aside = grade => { const near = Math.min(1, .3 * high); return 2 * grade > high ? near : high - near; };  // far from its bars, between cut points
  const cell = 46, svg = labPlot("Expected grades of the images of each true grade, with the cut points", {
    width: 640, height: (high + 1) * cell + 30, margin: 0, marginBottom: 24, marginTop: 6, x: { domain: [0, high] }, y: { axis: null }, fy: { axis: null, padding: .12 },
    marks: [
      Plot.rectY(bars, { fy: "grade", x1: "x1", x2: "x2", y1: 0, y2: "y" }), Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.text(lab.counts.map((row, grade) => ({ grade, x: aside(grade), text: `${names[grade]} (${several(row.reduce((a, b) => a + b, 0), "image")})` })), { fy: "grade", x: "x", text: "text", frameAnchor: "top", fill: "var(--text)", stroke: "var(--back)", strokeWidth: 3 }),
      Plot.axisX([...Array(high + 1).keys()], { anchor: "bottom", tickSize: 0, label: null, tickFormat: k => names[k] }),
    ],
  });
  const rects = [...svg.querySelectorAll("rect")], words = element("p", { class: "quiet" });
  const sliders = lab.chosen.map((_, k) => element("input", { type: "range", min: 0, max: high, step: .01, "aria-label": `cut point between ${names[k]} and ${names[k + 1]}`, "data-cut": k }));
  const marks = lab.chosen.map(() => element("i", { class: "lab-mark", "aria-hidden": "true" }));
  const values = lab.chosen.map(() => element("span", { class: "quiet" }));
  const cut = k => lab.edges[grades.at[k]], shown = x => String(Number(x.toFixed(4)));
  const place = value => labMath.nearest(lab.edges, value);
  const frame = labFrame(lab, {
    halfText: "Rounded", half: () => put(lab.chosen.map((_, k) => place(k + .5)), "rounded"), reset: () => put(lab.chosen.map(x => lab.edges.indexOf(x)), "as chosen"),
    toml: () => [
      `# Cut points of ${JSON.stringify(data.name)}, for: comp decide ${JSON.stringify(data.name)} --thresholds FILE`,
      "# They were set by someone who saw the held-out images, so their score is in-sample.", `cut_points = [${grades.at.map((_, k) => tomlNumber(cut(k))).join(", ")}]`, "",
    ].join("\n"),
  });
  function put(at, aloud) {
    grades.at = at;
    const confusion = grades.confusion(), right = confusion.reduce((sum, row, i) => sum + row[i], 0);
    at.forEach((_, k) => {
      sliders[k].value = cut(k);
      sliders[k].setAttribute("aria-valuetext", shown(cut(k)));
      values[k].textContent = shown(cut(k));
      marks[k].style.left = 100 * Math.min(1, Math.max(0, cut(k) / high)) + "%";
    });
    rects.forEach((rect, i) => {
      const { grade, x1 } = bars[i], given = at.filter((_, k) => x1 + .5 / steps > cut(k)).length;
      rect.dataset.kind = given === grade ? "hit" : Math.abs(given - grade) === 1 ? "alarm" : "miss";
    });
    words.textContent = confusion.map((row, i) => `${names[i]}: ${count(row[i])} of ${count(row.reduce((a, b) => a + b, 0))} right`).join(" · ");
    frame.show(grades.score(confusion), `${percent(right / grades.nAll)} get their grade`, aloud);
  }
  sliders.forEach((slider, k) => slider.addEventListener("input", () => {
    const [low, top] = [grades.at[k - 1] ?? 0, grades.at[k + 1] ?? lab.edges.length - 1];
    const at = grades.at.slice();
    at[k] = Math.min(top, Math.max(low, place(Number(slider.value))));
    put(at, `${slider.getAttribute("aria-label")} ${shown(lab.edges[at[k]])}`);
  }));
  const legend = element("ul", { class: "legend" }, ...[["hit", "right"], ["alarm", "off by one grade"], ["miss", "off by more"]].map(([kind, text]) => element("li", {}, element("b", { class: "lab-key", "data-kind": kind }), text)));
  byId("lab-body").append(frame.bar, legend, element("p", { class: "quiet" }, "Each row holds the images of a true grade by their expected grade, the mean of the grades weighed by their probabilities. Heights are square roots of the numbers of images."),
    element("div", { class: "lab-grades" }, element("div", { class: "lab-plot" }, svg, ...marks), ...sliders.flatMap((slider, k) => [element("span", { class: "lab-cut" }, `between ${names[k]} and ${names[k + 1]}: `, values[k]), slider])), words, frame.text);
  put(grades.at, "");
}

/* Probabilities: the curves of a label, and the point on them that a threshold has */
function labOfCurves(lab) {
  byId("lab-about").append("Probabilities are the answer, so no threshold is to be set. Here is what one would give: the point moves along both curves. " +
    "Precision is the share of the images above the threshold that have the label, recall the share of those that have it that are above.");
  const label = element("select", { id: "lab-label", onchange: () => draw() }, ...lab.curves.map((curve, i) => element("option", { value: i }, data.classes[curve.class].name)));
  const slider = element("input", { type: "range", min: 0, step: 1, id: "lab-threshold", "aria-label": "threshold" });
  slider.addEventListener("input", () => move());
  const charts = element("div", { class: "charts" }), cells = element("tbody"), said = element("span", { class: "unseen", role: "status" });
  const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "At this threshold" }, element("table", {}, cells)), RATE = "false positive rate";
  let dots = [], curve, timer;
  const share = (a, b) => b ? a / b : null;
  function place(i) {
    const [found, wrong] = [curve.found[i], curve.false[i]];
    return { threshold: curve.at[i], recall: found / curve.n, falseRate: wrong / curve.n_without, precision: share(found, found + wrong), found, missed: curve.n - found, wrong, left: curve.n_without - wrong };
  }
  function chart(title, x, y, points) {
    const line = points.filter(([a, b]) => a !== null && b !== null);
    const svg = labPlot(title, {
      width: 420, height: 330, marginLeft: 48, marginBottom: 38, x: { domain: [0, 1], label: x }, y: { domain: [0, 1], label: y, grid: true },
      marks: [Plot.line(line, { stroke: "var(--c0)", strokeWidth: 1.8 }), ...(x === RATE ? [Plot.line([[0, 0], [1, 1]], { stroke: "var(--c7)", strokeDasharray: "4 4" })] : [])],
    });
    const dot = svgElement("circle", { r: 5.5, class: "lab-dot" });
    svg.append(dot);
    charts.append(element("figure", {}, element("figcaption", {}, title), svg));
    return (a, b) => {
      dot.setAttribute("visibility", a === null || b === null ? "hidden" : "visible");
      dot.setAttribute("cx", svg.scale("x").apply(a ?? 0));
      dot.setAttribute("cy", svg.scale("y").apply(b ?? 0));
    };
  }
  function move() {
    const now = place(curve.at.length - 1 - Number(slider.value));
    dots[0](now.recall, now.precision);
    dots[1](now.falseRate, now.recall);
    slider.setAttribute("aria-valuetext", `${now.threshold}`);
    cells.replaceChildren(...[
      ["threshold", String(now.threshold)], ["recall (true positive rate)", percent(now.recall, 2)], ["precision", percent(now.precision, 2)], ["false positive rate", percent(now.falseRate, 2)],
      ["with the label: above, below", `${count(now.found)}, ${count(now.missed)}`], ["without it: above, below", `${count(now.wrong)}, ${count(now.left)}`],
    ].map(([name, text]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, text))));
    clearTimeout(timer);
    timer = setTimeout(() => { said.textContent = `threshold ${now.threshold}: recall ${percent(now.recall)}, precision ${percent(now.precision)}, ${count(now.missed)} missed, ${count(now.wrong)} false`; }, 700);
  }
  function draw() {
    curve = lab.curves[Number(label.value)];
    const all = curve.at.map((_, i) => place(i)), name = data.classes[curve.class].name;
    charts.replaceChildren(box);
    dots = [
      chart(`${name}: precision and recall`, "recall", "precision", all.map(p => [p.recall, p.precision])),
      chart(`${name}: ROC`, RATE, "recall", [[0, 0], ...all.map(p => [p.falseRate, p.recall])]),
    ];
    slider.max = curve.at.length - 1;
    slider.value = curve.at.length - 1 - curve.at.indexOf(.5);
    move();
  }
  byId("lab-body").append(
    element("div", { class: "controls" }, ...(lab.curves.length > 1 ? [element("label", {}, "Label ", label)] : []), element("label", { class: "lab-long" }, "Threshold ", slider), said), charts);
  draw();
}

async function startLab(lab) {
  if (lab.given) byId("notes")?.append(element("li", { class: "warning" }, `${lab.given.warning} The automatic rule's in-sample score is ${four(lab.given.automatic_in_sample)}.`));
  if (lab.answer === "grades") return labOfGrades(lab);
  if (lab.answer === "probabilities") return labOfCurves(lab);
  let bytes;
  try {
    bytes = await labMath.unpack(lab.packed);
  } catch {
    byId("lab-about").textContent = "This browser can't unpack the rows of the lab; a newer one can.";
    return;
  }
  labOfLabels(lab, bytes);
}

if (data.lab) startLab(data.lab);
