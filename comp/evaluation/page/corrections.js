/* Labels put right: each may be ticked as wrong, right or unsure; corrections.csv holds all ticks. */

const CORRECT = data.correcting;  // null where one answer is for several images
const OF_NUMBERS = data.answer === "numbers";
const TICKS = new Map();  // by key: { id, label, value, who, when, given }; value null: taken back
const KEPT_AS = CORRECT && `comp ${CORRECT.competition} `;
let ticksAreKept = true;

const realId = item => item.real ?? item.id;
const tickKey = (id, c) => JSON.stringify([id, CORRECT.labels[c]]);
const sameValue = (a, b) => a === b || (a !== "" && b !== "" && Number(a) === Number(b));

/* Keep a text in this browser; a local page may not be allowed to */
function keep(name, text) {
  try { localStorage.setItem(name, text); } catch { ticksAreKept = false; }
}

function kept() {
  try { return Object.entries(localStorage); } catch { ticksAreKept = false; return []; }
}

if (CORRECT) {
  for (const [id, c, value, who, when, given] of CORRECT.rows) {
    const key = tickKey(id, c);
    if (value !== "" || !TICKS.has(key)) TICKS.set(key, { id, label: CORRECT.labels[c], value, who, when, given });
  }
  for (const [name, text] of kept()) {
    if (!name.startsWith(KEPT_AS)) continue;
    try {
      const key = name.slice(KEPT_AS.length), tick = JSON.parse(text);
      if (CORRECT.labels.includes(tick.label) && (!TICKS.has(key) || tick.when > TICKS.get(key).when)) TICKS.set(key, tick);
    } catch { continue; }  // of another page
  }
}

/* What the table of labels says of an image's label: 1, 0, a number, or null where it is unknown */
function givenOf(image, c) {
  if (OF_NUMBERS) return image.numbers[c][0];
  return image.unknown?.includes(c) ? null : Number(image.true.includes(c));
}

function currentOf(image, c) {
  const value = TICKS.get(tickKey(realId(image), c))?.value;
  return value ? Number(value) : givenOf(image, c);
}

function setTick(id, c, given, value) {
  const key = tickKey(id, c), when = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const tick = { id, label: CORRECT.labels[c], value, who: byId("who").value.trim(), when, given };
  TICKS.set(key, tick);
  keep(KEPT_AS + key, JSON.stringify(tick));
  const image = images.find(one => realId(one) === id);
  if (value !== "1" || !image || OF_NUMBERS) return;
  for (const other of CORRECT.groups.filter(group => group.includes(c)).flat()) {  // one of them holds
    if (other !== c && currentOf(image, other) === 1) setTick(id, other, givenOf(image, other), "0");
  }
}

const SIGNS = { wrong: "✗", right: "✓", absent: "✗", there: "✓", unsure: "?" };

/* The buttons of one label of an image, or of a suspect; with `signs` in place of words */
function tickButtons(item, c, given, signs = false) {
  const id = realId(item);
  const options = OF_NUMBERS ? [["right", given === null ? null : String(given)], ["unsure", ""]]
    : given === null ? [["absent", "0"], ["there", "1"], ["unsure", ""]]
    : [["wrong", String(1 - given)], ["right", String(given)], ["unsure", ""]];
  const box = element("span", { class: "ticks", role: "group", "aria-label": `${classes[c].name} of ${item.id}`, "data-key": tickKey(id, c), "data-class": c });
  for (const [word, value] of options.filter(([, value]) => value !== null)) {
    box.append(element("button", { type: "button", "data-value": value, "data-word": word, "aria-label": word, title: word, onclick: event => {
      setTick(id, c, given, event.currentTarget.getAttribute("aria-pressed") === "true" ? null : value);
      showTicks();
    } }, signs ? SIGNS[word] : word));
  }
  if (OF_NUMBERS) box.append(element("input", { type: "number", step: "any", placeholder: "in fact", "aria-label": `${classes[c].name} of ${item.id} is in fact`,
    onkeydown: event => event.stopPropagation(),
    onchange: event => { setTick(id, c, given, event.currentTarget.value === "" ? null : String(Number(event.currentTarget.value))); showTicks(); } }));
  showBox(box);
  return box;
}

function showBox(box) {
  const value = TICKS.get(box.dataset.key)?.value ?? null;
  let known = value === null;
  for (const button of box.querySelectorAll("button")) {
    const on = value !== null && sameValue(value, button.dataset.value);
    known ||= on;
    button.setAttribute("aria-pressed", String(on));
  }
  for (const input of box.querySelectorAll("input")) input.value = known ? "" : value;
}

/* The last cell of a label's row beside an opened image */
function tickCell(image, c) {
  if (!CORRECT) return null;
  const given = givenOf(image, c);
  return element("td", { class: "text" }, OF_NUMBERS ? "" : element("span", { class: "quiet" }, given === null ? "unknown" : given ? "yes" : "no"), tickButtons(image, c, given, true));
}

const tickHead = () => CORRECT ? element("th", { scope: "col", class: "text" }, OF_NUMBERS ? "the true one is" : "in the table") : null;
const tickedOf = image => CORRECT ? classes.map((_, c) => c).filter(c => TICKS.get(tickKey(realId(image), c))?.value) : [];

/* What is below the table beside an opened image: what signs mean, and a choice of labels that it lacks */
function moreLabels(image, shown) {
  if (!CORRECT) return [];
  const about = element("p", { class: "quiet" }, OF_NUMBERS ? "✓: the true number is right, ?: unsure." : "✗: the table is wrong, ✓: it is right, ?: unsure.");
  const left = OF_NUMBERS ? [] : classes.map((_, c) => c).filter(c => !shown.querySelector(`[data-class="${c}"]`));
  if (!left.length) return [about];
  const select = element("select", { onchange: () => {
    const c = Number(select.value);
    image.more = [...(image.more || []), c];
    view(list, place, lit);
    byId("viewer-labels").querySelector(`[data-class="${c}"] button`).focus();
  }, onkeydown: event => event.stopPropagation() }, element("option", { value: "" }, "choose"), ...left.map(c => element("option", { value: c }, classes[c].name)));
  return [about, element("p", { class: "controls" }, element("label", {}, `Tick another ${NOUN} `, select))];
}

/* The names of images whose ticks leave none or several of labels of which one holds */
function unfinished() {
  const touched = new Set([...TICKS.values()].filter(tick => tick.value && !OF_NUMBERS).map(tick => tick.id));
  const every = classes.map((_, c) => c);
  return images.filter(image => touched.has(realId(image))).filter(image => {
    const n = group => group.filter(c => currentOf(image, c) === 1).length;
    const changed = group => group.some(c => currentOf(image, c) !== givenOf(image, c)), known = group => group.every(c => currentOf(image, c) !== null);
    return CORRECT.groups.some(group => changed(group) && n(group) !== 1 && (known(group) || n(group) > 1)) || (!CORRECT.empty && changed(every) && known(every) && n(every) === 0);
  });
}

const allTicks = () => [...TICKS.values()].filter(tick => tick.value !== null).sort((a, b) => compare(a.id, b.id) || compare(a.label, b.label));

/* Bring buttons, count, warning and file up to date. Nothing may come or go above the tables: a click that first
   ends the entry of a number would miss its button. */
function showTicks() {
  if (!CORRECT) return;
  document.querySelectorAll(".ticks").forEach(showBox);
  const found = allTicks(), kind = tick => tick.value === "" ? "unsure" : tick.given === null ? "known now" : sameValue(tick.value, String(tick.given)) ? "right" : "wrong";
  const kinds = ["wrong", "right", "unsure", "known now"].map(word => [found.filter(tick => kind(tick) === word).length, word]).filter(([n]) => n);
  byId("ticks-count").textContent = found.length ? `${several(found.length, "tick")}: ${kinds.map(([n, word]) => `${count(n)} ${word}`).join(", ")}.` : "No ticks yet.";
  const open = unfinished();
  byId("ticks-warning").textContent = [
    open.length ? `${open.length === 1 ? "This image is" : "These images are"} left without exactly one ${NOUN} where one is needed: ${listed(open.map(image => image.id))}. Open ${open.length === 1 ? "it" : "them"} and tick the ${NOUN} that holds.` : "",
    ticksAreKept ? "" : "This browser keeps nothing of local pages: download the file before you close this page."].join(" ").trim();
  const who = byId("who").value.trim(), rows = found.map(tick => [tick.id, tick.label, tick.value, tick.who || who, tick.when]);
  const csv = [["id", "label", "value", "who", "when"], ...rows].map(row => row.map(csvCell).join(",")).join("\n") + "\n";
  byId("corrections-file").href = "data:text/csv;charset=utf-8," + encodeURIComponent(csv);
}

/* All ticks as a table, made when it is opened: a row must not leave while it is ticked */
function listTicks() {
  const at = new Map(images.map((image, i) => [realId(image), i])), row = tick => ({ ...tick, c: CORRECT.labels.indexOf(tick.label), at: at.get(tick.id) });
  const name = tick => tick.at === undefined ? tick.id : images[tick.at].id;
  byId("ticked-table").replaceChildren(table([
    ["image", tick => tick.at === undefined ? tick.id : element("button", { type: "button", class: "plain", onclick: () => view([images[tick.at]], 0, tick.c) }, name(tick)), name, "text"],
    [NOUN, tick => classes[tick.c].name, tick => classes[tick.c].name, "text"],
    ["in the table", tick => tick.given === null ? "unknown" : OF_NUMBERS ? num(tick.given) : tick.given ? "yes" : "no", null, "text"],
    ["the table is", tick => tickButtons({ id: name(tick), real: tick.id }, tick.c, tick.given), null, "text"],
    ["who", tick => tick.who, tick => tick.who, "text"], ["when", tick => tick.when, tick => tick.when, "text"],
  ], allTicks().map(row), "All ticks"));
}

if (CORRECT) {
  byId("corrections").append(
    element("p", {}, OF_NUMBERS ? "Tick numbers that are right, and write the true number beside those that are wrong. " : `Tick whether the table of ${NOUN}s is wrong or right, here or beside an opened image. `,
      OF_NUMBERS ? "" : "In a row the keys w, r and u tick, and go to the next one. Unsure changes nothing. ",
      CORRECT.rows.some(row => row[2] !== "") ? `What this run was trained with is ticked already; ${NOUN}s that were found wrong or right are not suspected again. ` : "",
      `Download the ticks as corrections.csv${CORRECT.run ? " and train with them: " : ", and train the blended recipes with them."}`,
      CORRECT.run ? element("code", {}, `comp run ${CORRECT.run} --as ${CORRECT.run}-corrected --set competition.labels.corrections=corrections.csv`) : null),
    element("p", { class: "controls" },
      element("label", {}, "Who ticks ", element("input", { id: "who", autocomplete: "name", maxlength: 100, onchange: () => { keep("comp who", byId("who").value); showTicks(); } })),
      element("a", { id: "corrections-file", download: "corrections.csv"}, "Download corrections.csv")),
    element("p", { id: "ticks-count", role: "status" }), element("p", { id: "ticks-warning", class: "warning", role: "status" }),
    element("details", { id: "ticked", ontoggle: event => { if (event.currentTarget.open) listTicks(); } }, element("summary", {}, "All ticks"), element("div", { id: "ticked-table" })));
  byId("who").value = new Map(kept()).get("comp who") || "";
  if (typeof CORRECT.score === "number") byId("scores").append(element("div", { class: "tile" },
    element("span", {}, `Corrected labels, ${data.metric}`), element("strong", {}, four(CORRECT.score), " ", element("small", {}, BETTER)),
    element("p", {}, `The cross-fitted answers, scored on the corrected labels. ${CORRECT.changed} differ from the given ones, which the leaderboard has.`)));
  document.addEventListener("keydown", event => {
    const row = event.target.closest("tr"), box = row?.querySelector(".ticks");
    if (!box || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    const button = [...box.querySelectorAll("button")].find(one => one.dataset.word[0] === event.key);
    if (!button) return;
    event.preventDefault();
    button.click();
    if (byId("suspects-table").contains(row)) (row.nextElementSibling?.querySelector(".ticks button") || button).focus();
  });
}
