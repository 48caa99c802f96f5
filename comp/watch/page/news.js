/* Where the news come from: a server that is asked every few seconds, or this file, which is written again. */

const ASK_SECONDS = 5, RELOAD_SECONDS = 15;
const TIMES_DRAWN = 400, MAX_WAIT_SECONDS = 10;  // news wait for so many times as long as drawing took, so that a page takes about 1 % of a core
let paused = place.get("paused") === "1", heard = null, tag = "", failed = false, drawAfter = 0;

function picture(run, id) {
  return data.live ? `picture?${new URLSearchParams({ run, id })}` : data.pictures[run]?.[id] ? `data:image/jpeg;base64,${data.pictures[run][id]}` : null;
}

/* Get the details of the runs that are shown, where they have changed, and show them */
async function refresh() {
  if (data.live) {
    try {
      const run = chosenRun();
      for (const one of [run, run && comparedRun(run)]) if (one && known[one.name]?.version !== one.version) await getDetails(one.name);
    } catch { failed = true; }
  }
  const begun = performance.now();
  show();
  drawAfter = performance.now() + Math.min(TIMES_DRAWN * (performance.now() - begun), 1000 * MAX_WAIT_SECONDS);
  say();
}

/* The rows of a fold come once: the server is told the mark of the last one that is here */
async function getDetails(name) {
  const old = known[name];
  const after = old ? old.folds.map(fold => fold.mark).join(",") : "";
  const answer = await fetch(`run?${new URLSearchParams({ run: name, after })}`, { cache: "no-cache" });
  if (!answer.ok) throw new Error(answer.status);
  const found = await answer.json();
  found.folds.forEach((fold, i) => { fold.rows = [...(old?.folds[i]?.rows.slice(0, fold.known) || []), ...fold.rows]; });
  known[name] = found;
}

async function ask() {
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch("news", { cache: "no-cache" });
      if (!answer.ok) throw new Error(answer.status);
      ahead = Date.parse(answer.headers.get("date")) - Date.now();
      heard = now();
      const next = answer.headers.get("etag"), changed = failed || next !== tag;
      if (changed && (failed || performance.now() > drawAfter)) {
        failed = false;
        tag = next;
        news = await answer.json();
        await refresh();
      }
    } catch { failed = true; }
  }
  say();
  setTimeout(ask, 1000 * ASK_SECONDS);
}

function say() {
  const line = byId("news");
  line.className = failed && !paused ? "warning" : "quiet";
  if (!data.live) setText(line, data.over ? `Complete: written ${when(data.made)}; all runs are trained.`
    : `Written ${ago(data.made)}. ${paused ? "Paused: load the page again for news." : `It loads itself again every ${RELOAD_SECONDS} s while comp watch --static runs.`}`);
  else if (paused) setText(line, "Paused.");
  else if (failed) setText(line, `No answer from comp watch since ${heard ? ago(heard).replace(" ago", "") : "the start"}; start it again, with the same --port.`);
  else setText(line, `Live: looks for news every ${ASK_SECONDS} s.`);
  countOn();
}

function showPaused() {
  byId("pause").setAttribute("aria-pressed", String(paused));
}
byId("pause").addEventListener("click", () => { paused = !paused; keep("paused", paused ? "1" : ""); showPaused(); say(); });
showPaused();

if (data.live) ask();
else {
  news = data.news;
  Object.assign(known, data.details);
  ahead = 0;
  show();
  say();
  byId("pause").hidden = data.over;
  if (!data.over) {
    setInterval(say, 1000 * ASK_SECONDS);
    setInterval(() => { if (!paused && !document.hidden) location.reload(); }, 1000 * RELOAD_SECONDS);
  }
}
