/* Curves over the epochs of a run, drawn by Observable Plot. */

const colour = i => `var(--c${i % 8})`;
const clock = seconds => {
  const s = Math.max(0, Math.round(seconds)), two = n => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
};
const bytes = n => n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${Math.round(n / 1e6)} MB`;

/* { title, about, lines: [{ name, colour, points: [{ x, y }], … }], phases: [{ from, text }], n, text, zero }
   x counts epochs from 1; a phase begins half an epoch before its first; text(y) is what a value is written as.
   A line is drawn with dots, or `smooth` without them, or `dotted` as dots alone; that of an `other` run is faint */
function curves({ title, about, lines, phases, n, text, zero }) {
  const all = lines.flatMap(line => line.points.map(point => ({ ...point, name: line.name })));
  const svg = Plot.plot({
    width: 420, height: 240, marginLeft: 56, marginTop: 26, marginBottom: 36, ariaLabel: about, style: { background: "none", fontFamily: "inherit" },
    x: { label: "epoch", domain: [.5, n + .5], ticks: d3.ticks(1, n, Math.min(n, 8)).filter(Number.isInteger), tickFormat: "d" },
    y: { grid: true, label: null, nice: true, zero, ticks: 5, tickFormat: text },
    marks: [
      Plot.ruleX(phases.slice(1), { x: "from", stroke: "var(--quiet)", strokeDasharray: "3 3" }),
      Plot.text(phases, { x: "from", text: "text", frameAnchor: "top", textAnchor: "start", dx: 3, dy: -16 }),
      ...lines.filter(line => !line.dotted).map(line => Plot.line(line.points, {
        x: "x", y: "y", stroke: line.colour, strokeWidth: line.other ? 1.2 : 2, strokeOpacity: line.other ? .6 : 1, strokeDasharray: line.other || line.dash ? "4 3" : null,
      })),
      ...lines.filter(line => !line.other && !line.smooth).map(line => Plot.dot(line.points, { x: "x", y: "y", fill: line.colour, r: 2.5 })),
      Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: point => `${point.name}\nepoch ${num(point.x)}: ${text(point.y)}` })),
    ],
  });
  svg.setAttribute("role", "img");
  for (const part of svg.querySelectorAll("g[aria-label]")) part.removeAttribute("aria-label"); // a group without a role has no name
  return element("figure", {}, element("figcaption", {}, title), svg);
}
