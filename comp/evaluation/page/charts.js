/* Charts as SVG. */

const classes = data.classes;
const F = "F" + data.beta;
/* The outline of a histogram: its bars lie evenly between low and high */
const steps = (shares, { low, high }) => shares.flatMap((share, i) => [0, 1].map(end => [low + (high - low) * (i + end) / shares.length, share]));

const colour = i => `var(--c${i % 8})`;

/* Charts: { title, about, width, height, x: [low, high, label], y: [low, high, label],
   lines: [{ points: [[x, y]], colour, width, dots, faint, name }], marks: [{ x, colour, faint }], bands: [{ from, to, text }],
   bars: [{ x, low, high, colour }], points: [[x, y]], legend } */
function chart(c) {
  const width = c.width || 420, height = c.height || 250;
  const left = c.small ? 30 : 58, right = 10, top = c.bands ? 20 : 10, bottom = c.small ? 22 : 38;
  const sx = x => left + (x - c.x[0]) / ((c.x[1] - c.x[0]) || 1) * (width - left - right);
  const sy = y => height - bottom - (y - c.y[0]) / ((c.y[1] - c.y[0]) || 1) * (height - top - bottom);
  const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": c.about });
  for (const band of c.bands || []) {
    const x = sx(band.from);
    svg.append(svgElement("line", { x1: x, x2: x, y1: top - 8, y2: height - bottom, class: "axis", "stroke-dasharray": "3 3" }));
    svg.append(svgElement("text", { x: x + 4, y: 12 }, band.text));
  }
  for (const y of ticks(c.y[0], c.y[1], c.small ? 3 : 5)) {
    svg.append(svgElement("line", { x1: left, x2: width - right, y1: sy(y), y2: sy(y), class: "axis" }));
    svg.append(svgElement("text", { x: left - 5, y: sy(y) + 4, "text-anchor": "end" }, shown(y)));
  }
  for (const x of c.whole ? ticks(c.x[0], c.x[1], 6).filter(Number.isInteger) : ticks(c.x[0], c.x[1], c.small ? 3 : 5)) {
    svg.append(svgElement("text", { x: sx(x), y: height - bottom + 15, "text-anchor": "middle" }, shown(x)));
  }
  if (c.x[2] && !c.small) svg.append(svgElement("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, c.x[2]));
  if (c.y[2] && !c.small) {
    svg.append(svgElement("text", { x: 11, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(top + height - bottom) / 2})` }, c.y[2]));
  }
  for (const mark of c.marks || []) {
    svg.append(svgElement("line", {
      x1: sx(mark.x), x2: sx(mark.x), y1: top, y2: height - bottom, style: `stroke: ${mark.colour}`,
      "stroke-width": mark.faint ? 1 : 2.5, opacity: mark.faint ? .55 : 1,
    }));
  }
  for (const bar of c.bars || []) {
    svg.append(svgElement("line", { x1: sx(bar.x), x2: sx(bar.x), y1: sy(bar.low), y2: sy(bar.high), style: `stroke: ${bar.colour}` }));
  }
  for (const [x, y] of c.points || []) {
    svg.append(svgElement("circle", { cx: sx(x).toFixed(1), cy: sy(y).toFixed(1), r: 2.2, style: "fill: var(--c0)", opacity: .35 }));
  }
  for (const line of c.lines) {
    const points = line.points.filter(p => p[1] !== null && p[1] !== undefined);
    if (points.length > 1) {
      svg.append(svgElement("polyline", {
        points: points.map(p => `${sx(p[0]).toFixed(1)},${sy(p[1]).toFixed(1)}`).join(" "), fill: "none",
        style: `stroke: ${line.colour}`, "stroke-width": line.width || 1.8, "stroke-dasharray": line.dash || "none",
      }));
    }
    for (const p of line.dots || points.length === 1 ? points : []) {
      svg.append(svgElement("circle", { cx: sx(p[0]), cy: sy(p[1]), r: 3, style: `fill: ${line.colour}` }, svgElement("title", {}, p[2] || `${shown(p[0])}: ${four(p[1])}`)));
    }
  }
  const figure = element("figure", {}, element("figcaption", {}, c.title), svg);
  if (c.legend) {
    figure.append(element("ul", { class: "legend" }, ...c.legend.map(([name, paint, dash]) =>
      element("li", {}, element("i", { style: `border-color: ${paint}; border-top-style: ${dash ? "dashed" : "solid"}` }), name))));
  }
  return figure;
}

function ticks(low, high, n) {
  const rough = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(k => k * power).find(s => s >= rough * .999);
  const found = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let k = 0; k <= 2 * n && (first + k) * step <= high + step * 1e-6; k++) found.push((first + k) * step);
  return found;
}

const shown = x => x && Math.abs(x) < .001 ? x.toExponential(0) : Math.abs(x) >= 1000 ? count(Math.round(x)) : String(Number(x.toPrecision(3)));

/* One value per fold on a line */
function dots(folds, low, high) {
  const width = 240, x = v => 8 + (v - low) / ((high - low) || 1) * (width - 16);
  const svg = svgElement("svg", { viewBox: `0 0 ${width} 26`, role: "img", "aria-label": "By fold: " + folds.map(f => `${f.fold}: ${four(f.value)}`).join(", ") });
  svg.append(svgElement("line", { x1: 0, x2: width, y1: 13, y2: 13, class: "axis" }));
  for (const fold of folds) {
    svg.append(svgElement("circle", { cx: x(fold.value), cy: 13, r: 5, style: "fill: var(--c0)", opacity: .75 }, svgElement("title", {}, `fold ${fold.fold}: ${four(fold.value)}`)));
  }
  return svg;
}

/* The 95 % interval of a share of n (Wilson, 1927) */
function wilson(share, n) {
  const z = 1.96, middle = (share + z * z / (2 * n)) / (1 + z * z / n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/* Cells of row class i and column class j, coloured by paint(value(i, j)); `few` lists the classes */
function matrixChart(few, title, value, paint, about) {
  const side = 12, pad = 100, size = pad + side * few.length;
  const svg = svgElement("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": about });
  few.forEach((row, i) => {
    const name = classes[row].name.length > 16 ? classes[row].name.slice(0, 15) + "…" : classes[row].name;
    const style = "font-size: 9px";
    svg.append(svgElement("text", { x: pad - 4, y: pad + side * i + 9, "text-anchor": "end", style }, name));
    svg.append(svgElement("text", { transform: `translate(${pad + side * i + 9} ${pad - 4}) rotate(-90)`, style }, name));
    few.forEach((column, j) => {
      if (i === j) return;
      const v = value(i, j);
      svg.append(svgElement("rect", { x: pad + side * j, y: pad + side * i, width: side - 1, height: side - 1, style: paint(v) },
        svgElement("title", {}, `${classes[row].name} with ${classes[column].name}: ${percent(v)}`)));
    });
  });
  return element("figure", {}, element("figcaption", {}, title), svg);
}

/* How many images of each true class (rows) were given each class (columns) */
function confusionChart({ classes: few, images }, title) {
  const long = Math.max(...few.map(c => Math.min(16, classes[c].name.length))), pad = 14 + 5.5 * long;
  const side = few.length > 16 ? 14 : Math.min(44, 300 / few.length), size = pad + side * few.length;
  const svg = svgElement("svg", { viewBox: `0 0 ${size} ${size + 14}`, role: "img", "aria-label": title, style: `max-width: ${size * 1.6}px` });
  const short = c => classes[c].name.length > 16 ? classes[c].name.slice(0, 15) + "…" : classes[c].name;
  const style = "font-size: 9px", middle = side / 2 + 3;
  few.forEach((c, i) => {
    const total = images[i].reduce((a, n) => a + n, 0);
    svg.append(svgElement("text", { x: pad - 4, y: pad + side * i + middle, "text-anchor": "end", style }, short(c)));
    svg.append(svgElement("text", long > 3 ? { transform: `translate(${pad + side * i + middle} ${pad - 4}) rotate(-90)`, style }
      : { x: pad + side * (i + .5), y: pad - 5, "text-anchor": "middle", style }, short(c)));
    few.forEach((other, j) => {
      const n = images[i][j], share = total ? n / total : 0;
      svg.append(svgElement("rect", { x: pad + side * j, y: pad + side * i, width: side - 1, height: side - 1, style: blue(share) },
        svgElement("title", {}, `${classes[c].name} given ${classes[other].name}: ${count(n)} of ${count(total)}`)));
      if (n && side > 14) svg.append(svgElement("text", { x: pad + side * (j + .5), y: pad + side * i + middle, "text-anchor": "middle", style: `${style}; fill: ${share > .5 ? "var(--back)" : "var(--text)"}; pointer-events: none` }, count(n)));
    });
  });
  svg.append(svgElement("text", { x: pad, y: size + 10, style }, "rows: true, columns: predicted"));
  return element("figure", {}, element("figcaption", {}, title), svg);
}

const blue = v => `fill: color-mix(in srgb, var(--c0) ${Math.round(100 * Math.min(1, v))}%, var(--panel))`;
const difference = v => `fill: color-mix(in srgb, var(${v > 0 ? "--c1" : "--c0"}) ${Math.round(100 * Math.min(1, Math.abs(v) * 3))}%, var(--panel))`;
