/* The images, one image, and suspected labels or numbers. */

/* --- images */

const images = data.images, hasMaps = images.some(image => Object.keys(image.maps).length);
const prob = (image, c) => image.probs[c] || 0;
const source = image => "data:image/webp;base64," + image.picture;
const ANSWERS_NUMBERS = data.answer === "numbers";
const status = (image, c) => {
  if (image.unknown?.includes(c)) return "unknown";
  const there = image.true.includes(c), answered = image.decided.includes(c);
  return there ? (answered ? "hit" : "miss") : answered ? "alarm" : "none";
};
const ONE = data.answer === "grades" || data.ranking || data.single;  // label or grade per image
const WORD = { hit: "right", miss: ONE && data.answer !== "labels" ? "true" : "missed", alarm: ONE && data.answer !== "labels" ? "predicted" : "false alarm", none: "", unknown: "unknown" };
const ANSWER = { ...WORD, none: ONE && data.answer !== "labels" ? "" : "rightly absent" };
const SIGN = { hit: "", miss: "− ", alarm: "+ ", unknown: "? " };

const AT_HALF = data.answer === "probabilities" && !ONE && data.rule !== "binary";
const CHOICE = {
  labels: "the worst misses and false alarms of each label, suspected labels, the highest losses",
  grades: "the worst misses and false alarms of each grade, suspected grades, the highest losses",
  numbers: "the numbers that are the most too high and too low, suspected numbers",
}[data.answer] || "the worst misses and false alarms of each label, suspected labels, the highest losses";
const MARKS = {
  labels: " − marks a missed label, + a false alarm.",
  probabilities: ONE ? " − marks the true label where another one, marked +, is the most probable." : `${AT_HALF ? " Probabilities above 0.5 count as predicted here:" : ""} − marks a missed label, + a false alarm.`,
  grades: " − marks the true grade where another is predicted.", ranking: " − marks a true label where another one, marked +, comes first.",
  numbers: ` The loss is the absolute error${classes.length > 1 ? ", here the mean over the columns in standard deviations of the true numbers" : ""}.`,
}[data.answer];
byId("images-about").textContent =
  `${count(images.length)} of ${count(data.n_rows)} held-out images: ${CHOICE}, and some at random. Each image is predicted by the network ` +
  `that was not trained on it.${MARKS} Select an image to see ${ANSWERS_NUMBERS ? "its numbers" : "its probabilities"}` +
  (hasMaps ? ` and where the evidence for a ${NOUN} lies.` : ".");
byId("label-noun").textContent = titled(NOUN);
choices("label", [...(classes.length > 1 ? [["", "any"]] : []), ...data.shown.map(c => [c, classes[c].name])]);
const KINDS = ANSWERS_NUMBERS ? { missed: "too low", alarm: "too high", right: null }
  : ONE ? { missed: `missed: its ${NOUN}, another is predicted`, alarm: `wrong: predicted, not its ${NOUN}` } : {};
for (const option of [...byId("kind").options]) {
  if (KINDS[option.value] === null) option.remove();
  else option.textContent = KINDS[option.value] || option.textContent;
}
if (ANSWERS_NUMBERS) for (const [value, text] of [["p", "highest prediction"], ["-p", "lowest prediction"]]) byId("order").querySelector(`[value="${value}"]`).textContent = text;

const PAGE = 48;
let found = [], open = PAGE, picked = null;  // the images that the map selects, or null

function matches() {
  const label = byId("label").value, kind = byId("kind").value, order = byId("order").value, c = Number(label);
  const fits = image => {
    if (ANSWERS_NUMBERS) return kind === "any" || (label === "" ? [image.worst[0]] : [c]).some(k => errorOf(image, k) * (kind === "alarm" ? 1 : -1) > 0);
    const kinds = (label === "" ? [...new Set([...image.true, ...image.decided])] : [c]).map(k => status(image, k));
    if (kind === "any") return label === "" || kinds[0] !== "none";
    if (kind === "missed") return kinds.includes("miss");
    if (kind === "alarm") return kinds.includes("alarm");
    return label === "" ? kinds.every(k => k === "hit") : kinds[0] === "hit";
  };
  const p = image => ANSWERS_NUMBERS ? image.numbers[label === "" ? image.worst[0] : c][1] : label === "" ? Math.max(0, ...Object.values(image.probs)) : prob(image, c);
  const keys = { loss: i => -i.loss, "-loss": i => i.loss, p: i => -p(i), "-p": p, id: i => i.id };
  return images.filter(image => fits(image) && (!picked || picked.has(image))).sort((a, b) => compare(keys[order](a), keys[order](b)));
}

const errorOf = (image, c) => image.numbers[c][0] === null ? 0 : image.numbers[c][1] - image.numbers[c][0];
const numberText = ([truth, given]) => `${truth === null ? "unknown" : "true " + num(truth)}, predicted ${num(given)}`;

/* What a card says below the picture */
function cardLines(image) {
  if (ANSWERS_NUMBERS) {
    const some = image.worst.slice(0, 3).map(c => element("span", {}, (classes.length > 1 ? classes[c].name + ": " : "") + numberText(image.numbers[c])));
    return classes.length > 3 ? [...some, element("span", { class: "quiet" }, `and ${classes.length - 3} more`)] : some;
  }
  if (data.grades) return [
    element("span", { class: image.true[0] === image.decided[0] ? "hit" : "miss" }, `${image.true[0] === image.decided[0] ? "" : "− "}true ${classes[image.true[0]].name}, predicted ${classes[image.decided[0]].name}`),
    element("span", { class: "quiet" }, `expected grade ${image.expected.toFixed(2)}`)];
  const labels = [...new Set([...image.true, ...image.decided])].sort((a, b) => prob(image, b) - prob(image, a));
  const lines = labels.map(c => {
    const kind = status(image, c);
    return element("span", { class: kind, title: WORD[kind] }, `${SIGN[kind]}${classes[c].name} ${prob(image, c).toFixed(2)}`,
      kind === "hit" ? null : element("span", { class: "unseen" }, `, ${WORD[kind]}`));
  });
  if (data.ranking) return [...lines, element("span", { class: "quiet" }, image.true.length ? `the true label is at place ${count(image.rank)}` : "no true label")];
  return lines.length ? lines : [element("span", {}, "no label, and none predicted")];
}

const lossText = image => ANSWERS_NUMBERS ? num(image.loss) : image.loss.toFixed(2);

function card(image, at) {
  return element("li", {}, element("button", { type: "button", onclick: () => view(found, at) },
    element("img", { src: source(image), alt: "", loading: "lazy" }),
    element("span", { class: "quiet" }, `${image.id}, loss ${lossText(image)}`), ...cardLines(image)));
}

function refresh(keep) {
  found = matches();
  if (!keep) open = PAGE;
  byId("gallery").replaceChildren(...found.slice(0, open).map(card));
  const label = byId("label").value, kind = byId("kind").value, row = classes[Number(label)];
  let whole = "";
  if (label !== "" && kind === "missed" && row.misses !== undefined) whole = ` Of all held-out images, ${count(row.misses)} of ${count(row.n)} with ${row.name} were missed.`;
  if (label !== "" && kind === "alarm" && row.alarms !== undefined) whole = ` Among all held-out images, ${count(row.alarms)} without ${row.name} were false alarms.`;
  if (picked) whole += " Only images that are selected on the map are shown.";
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
let list = [], place = 0, lit = null, zoomed = 1;

function view(of, at, label = null) {
  list = of; place = at; lit = null;
  const image = list[place];
  byId("viewer-title").textContent = image.id;
  byId("large").src = image.large ? "data:image/webp;base64," + image.large : source(image);
  zoom(1);
  byId("large").alt = `${image.id}: ${ANSWERS_NUMBERS ? image.numbers.map(([truth], c) => `${classes[c].name} ${num(truth)}`).slice(0, 10).join(", ") : image.true.map(c => classes[c].name).join(", ") || "no label"}`;
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === list.length - 1;
  const rows = ANSWERS_NUMBERS ? numberTable(image) : labelTable(image);
  byId("viewer-labels").replaceChildren(rows, ...moreLabels(image, rows));
  light(label);
  if (!viewer.open) viewer.showModal();
  viewer.dispatchEvent(new Event("show"));
  if (!viewer.contains(document.activeElement) || document.activeElement.disabled) viewer.focus();
}

/* The button that shows the heat map of label c */
function mapButton(image, c) {
  if (!image.maps[c]) return "";
  return element("button", { type: "button", "data-label": c, "aria-pressed": "false", "aria-label": `Where is the evidence for ${classes[c].name}?`, onclick: () => light(lit === c ? null : c) }, "where?");
}

/* A table about an image: a note, column titles of which those after `n_right` are text, and rows */
function viewerTable(image, note, titles, n_right, rows) {
  const head = [...titles, hasMaps ? "evidence" : ""].map((title, i) =>
    title ? element("th", { scope: "col", class: i > n_right ? "text" : null }, title) : element("td"));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${titled(NOUN)}s of this image` },
    element("p", { class: "quiet note" }, note),
    element("table", {}, element("thead", {}, element("tr", {}, ...head, tickHead())), element("tbody", {}, ...rows)));
}

function numberTable(image) {
  const rows = image.worst.map(c => element("tr", {}, element("th", { scope: "row" }, classes[c].name),
    element("td", {}, image.numbers[c][0] === null ? "unknown" : num(image.numbers[c][0])), element("td", {}, num(image.numbers[c][1])),
    element("td", {}, image.numbers[c][0] === null ? "" : num(errorOf(image, c))), element("td", {}, mapButton(image, c)), tickCell(image, c)));
  return viewerTable(image, `Fold ${image.fold}, loss ${num(image.loss)}. The error is predicted minus true.`, ["number", "true", "predicted", "error"], 3, rows);
}

function labelTable(image) {
  const asked = new Set([...image.true, ...image.decided, ...Object.keys(image.maps).map(Number), ...(image.more || []), ...tickedOf(image)]);
  const falling = classes.map((_, c) => c).sort((a, b) => prob(image, b) - prob(image, a));
  const chosen = data.grades && classes.length <= 12 ? classes.map((_, c) => c) : falling.filter((c, i) => asked.has(c) || i < 6);
  const rows = chosen.map(c => {
    const kind = status(image, c), t = thresholdOf(image, c);
    const bar = element("span", { class: "bar", "aria-hidden": "true" },
      element("i", { style: `width: ${(100 * prob(image, c)).toFixed(1)}%` }), t === null ? null : element("b", { style: `left: ${100 * t}%` }));
    return element("tr", {}, element("th", { scope: "row" }, classes[c].name), element("td", {}, bar, " " + prob(image, c).toFixed(3)),
      element("td", { class: "text " + kind }, ANSWER[kind]), element("td", {}, mapButton(image, c)), tickCell(image, c));
  });
  const marks = data.answer !== "labels" ? (data.grades ? `The expected grade is ${image.expected.toFixed(2)}.` : data.ranking && image.true.length ? `The true label is at place ${count(image.rank)}.` : "")
    : image.nearest ? "No label passes its threshold (the mark on its bar), so the nearest one is predicted."
    : chosen.some(c => thresholdOf(image, c) !== null) ? `The mark on a bar is the threshold fitted without this ${PART}.`
    : `The rule fitted without this ${PART} compares labels with each other: it has no thresholds to mark.`;
  return viewerTable(image, `Fold ${image.fold}, loss ${image.loss.toFixed(3)}${ONE && data.answer !== "labels" ? "" : ", summed over labels"}. ${marks}`,
    [NOUN, "probability", AT_HALF ? "at 0.5" : "prediction"], 1, rows);
}

const thresholdOf = (image, c) => classes[c].by_part ? classes[c].by_part[image.part] : null;

const move = by => { if (list[place + by]) view(list, place + by); };
byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", event => {
  if (event.target.matches("input, .zoomed, .zoomed *")) return;  // arrows move these
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });

/* --- suspected labels */

const doubts = data.suspects, SHOWN = 50;
const ARE = data.n_suspects === 1 ? "is" : "are";
const WHY = {
  numbers: ` ${ARE} far from what the network says, judged by networks that were not trained on these images: 3.5 standard deviations or more, compared with the errors of images with similar predictions. The furthest come first. Check them before you trust a score.`,
  grades: ` ${ARE} more likely wrong than right, judged by networks that were not trained on these images and by how often the grades contradict such confident predictions. Those that are the furthest from the expected grade come first. Check them before you trust a score.`,
}[data.answer] || ` ${ARE} more likely wrong than right, judged by networks that were not trained on these images and ` +
  "by how often the labels contradict such confident predictions. The most doubtful come first. Check them before you trust a label's score.";
byId("suspects-about").textContent = doubts.length ? several(data.n_suspects, NOUN) + WHY
  : ANSWERS_NUMBERS ? "No number is far from what the network says." : `No ${NOUN} is more likely wrong than right.`;
if (doubts.length) {
  const rows = doubts.slice(0, SHOWN), named = row => classes[row.label].name;
  const COLUMNS = {
    numbers: [["number", named, named, "text"], ["true", row => num(row.given), row => row.given], ["predicted", row => num(row.p), row => row.p],
      ["deviation", row => row.doubt.toFixed(1), row => Math.abs(row.doubt)]],
    grades: [["grade", named, row => row.label, "text"], ["expected", row => row.expected.toFixed(2), row => row.expected],
      ["probability", row => row.p.toFixed(3), row => row.p], ["doubt", row => row.doubt.toFixed(3), row => row.doubt],
      ["distance", row => Math.abs(row.expected - row.label).toFixed(2), row => Math.abs(row.expected - row.label)]],
  }[data.answer] || [["label", named, named, "text"], ["in the table", row => row.given ? "yes" : "no", row => row.given, "text"],
    ["probability", row => row.p.toFixed(3), row => row.p], ["doubt", row => row.doubt.toFixed(3), row => row.doubt]];
  byId("suspects-table").append(table([
    ["image", row => row.image === null ? row.id : element("button", { type: "button", class: "plain", "aria-label": `Show ${row.id}`, onclick: () => view([images[row.image]], 0, row.label) }, element("img", { src: source(images[row.image]), alt: "", loading: "lazy" }), row.id), null, "text"],
    ...COLUMNS, ...(CORRECT ? [[ANSWERS_NUMBERS ? "the true one is" : "the table is", row => tickButtons(row, row.label, row.given), null, "text"]] : []),
  ], rows, `Suspected ${NOUN}s`, [COLUMNS.length, "descending"]));
  const keys = { numbers: ["number", "true", "predicted", "deviation"], grades: ["grade", "probability", "doubt", "expected"] }[data.answer] || ["label", "given", "probability", "doubt"];
  const cells = row => data.grades ? [row.p, row.doubt, row.expected] : [row.given, row.p, row.doubt];
  const csv = [["id", ...keys].join(","), ...doubts.map(row => [csvCell(row.id), csvCell(named(row)), ...cells(row)].join(","))].join("\n") + "\n";
  byId("suspects-table").append(element("p", {}, element("a", { download: `${data.name}-suspects.csv`, href: "data:text/csv;charset=utf-8," + encodeURIComponent(csv) }, `${doubts.length < data.n_suspects ? "The most doubtful" : "All"} ${count(doubts.length)} as CSV`)));
}
showTicks();
