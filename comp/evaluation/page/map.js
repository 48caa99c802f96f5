/* The map of the images: a lasso or the nearest images of one select what the gallery shows. */

if (data.map) {
  const map = data.map, NEAR = 24, LEAST_DRAG = 6;  // images; pixels of the screen before a press is a lasso
  const columns = Object.keys(map).filter(key => Array.isArray(map[key]) && map[key].length === map.n);
  const points = map.x.map((_, i) => Object.fromEntries(columns.map(key => [key, map[key][i]])));
  const byName = new Map(points.map(point => [point.id, point]));
  const inGallery = points.filter(point => point.image !== null).length;
  let selected = null, chosen = null, chart = null, dragged = false;  // a set of points or null, a point or null, the drawing, whether the last press was a lasso

  byId("map-about").textContent =
    `${map.n < data.n_rows ? `${count(map.n)} of ${count(data.n_rows)} held-out images: those of the gallery, and others at random` : `All ${count(map.n)} held-out images`}. ` +
    `Images that the networks see as alike are near each other. Each image is placed by the network that was not trained on it${map.by ? ` (of ${map.by} only)` : ""}; ` +
    "the networks are aligned by test images that all of them see. The map shows the first two principal components of the pooled features, with " +
    `${percent(map.shares[0] + map.shares[1], 0)} of the variance: images that are near here may differ in the rest. Draw a line around images with the mouse, or name one, to see only these in the gallery below. ` +
    `It has ${count(inGallery)} of them, the larger marks; select one to open it.`;

  /* --- colours: each choice has a name, what it says of a point, and a scale */

  const KINDS = [["hit", "right", "var(--c2)", "circle", "○"], ["miss", WORD.miss, "var(--miss)", "times", "✕"],
    ["alarm", WORD.alarm, "var(--alarm)", "triangle", "△"], ["unknown", "unknown", "var(--c3)", "square", "□"], ["none", "without it", "color-mix(in srgb, var(--quiet) 60%, var(--back))", "circle", "○"]];
  const inOrder = names => ({ of: names, range: names.map((_, i) => `var(--c${i % 8})`), symbols: names.map(() => "circle"), glyphs: names.map(() => "○") });
  const losses = [...map.loss].sort((a, b) => a - b);
  const ofLoss = { title: "share of images with a lower loss, in %", domain: [0, 100], value: point => 100 * d3.bisectLeft(losses, point.loss) / losses.length };
  const ofNumber = c => ({ title: `true ${classes[c].name}`, value: point => point.numbers[c][0] });
  const ofFold = { value: point => `fold ${point.fold}`, ...inOrder([...new Set(map.fold)].sort((a, b) => a - b).map(fold => `fold ${fold}`)) };
  const ofClass = { value: point => classes[point.true[0]]?.name ?? "none", ...inOrder(classes.map(row => row.name)) };
  const ofLabel = c => {
    const kinds = KINDS.filter(([kind]) => kind !== "unknown" || map.unknown);
    return { value: point => kinds.find(([kind]) => kind === status(point, c))[1], of: kinds.map(k => k[1]), range: kinds.map(k => k[2]), symbols: kinds.map(k => k[3]), glyphs: kinds.map(k => k[4]) };
  };
  const byClass = ONE && !ANSWERS_NUMBERS && classes.length <= 8;
  choices("map-colour", [["loss", "error (loss)"], ...(byClass ? [["class", `true ${NOUN}`]] : []), ["fold", "fold"],
    ...data.shown.map(c => [c, ANSWERS_NUMBERS ? `true ${classes[c].name}` : `${NOUN} ${classes[c].name}`])]);
  const scaleOf = choice => ({ loss: ofLoss, class: ofClass, fold: ofFold })[choice] ?? (ANSWERS_NUMBERS ? ofNumber(Number(choice)) : ofLabel(Number(choice)));

  /* --- the drawing */

  const labelsText = point => ANSWERS_NUMBERS
    ? point.numbers.slice(0, 3).map((pair, c) => (classes.length > 1 ? classes[c].name + ": " : "") + numberText(pair)).join("; ")
    : [...new Set([...point.true, ...point.decided])].map(c => SIGN[status(point, c)] + classes[c].name + (WORD[status(point, c)] === "right" ? "" : ` (${WORD[status(point, c)]})`)).join(", ") || "no label";
  const about = point => `${point.id}: ${labelsText(point)}; fold ${point.fold}, loss ${lossText(point)}`;
  const LOW_TO_HIGH = d3.piecewise(d3.interpolateRgb, ["#3f86e0", "#a86cc8", "#e0442e"]);  // seen on white and on black

  function draw() {
    const scale = scaleOf(byId("map-colour").value), room = byId("map-chart").clientWidth;
    const shown = [...points].sort((a, b) => (a.image !== null) - (b.image !== null));
    const marks = { x: "x", y: "y", r: point => point.image === null ? 2 : 3.5, opacity: point => !selected || selected.has(point) ? .85 : .12, ariaHidden: "true" };
    const common = {
      width: Math.max(320, Math.min(900, room, 560 * d3.max(map.x) / Math.max(1, d3.max(map.y)))), aspectRatio: 1, margin: 0, axis: null, inset: 12, x: { domain: [0, d3.max(map.x)] }, y: { domain: [0, d3.max(map.y)] }, r: { type: "identity" }, opacity: { type: "identity" },
      ariaLabel: `Map of ${count(map.n)} images`,
    };
    const ring = Plot.dot(chosen ? [chosen] : [], { x: "x", y: "y", r: 9, stroke: "var(--text)", strokeWidth: 2, ariaHidden: "true" });
    const tip = Plot.tip(shown, Plot.pointer({ x: "x", y: "y", title: about, maxRadius: 20, lineWidth: 24, ariaHidden: "true" }));
    if (scale.of) {
      chart = Plot.plot({
        ...common, color: { type: "categorical", domain: scale.of, range: scale.range }, symbol: { domain: scale.of, range: scale.symbols },
        marks: [Plot.dot(shown, { ...marks, stroke: scale.value, symbol: scale.value, strokeWidth: 1.5 }), ring, tip],
      });
      byId("map-legend").replaceChildren(element("ul", { class: "legend" }, ...scale.of.map((name, i) =>
        element("li", {}, element("span", { style: `color: ${scale.range[i]}`, "aria-hidden": "true" }, scale.glyphs[i] + " "), name))));
    } else {
      chart = Plot.plot({
        ...common, color: { type: "linear", domain: scale.domain, interpolate: LOW_TO_HIGH, label: scale.title, unknown: "var(--quiet)" },
        marks: [Plot.dot(shown, { ...marks, fill: scale.value }), ring, tip],
      });
      byId("map-legend").replaceChildren(chart.legend("color", { width: 260 }));
    }
    chart.setAttribute("role", "img");
    byId("map-chart").replaceChildren(chart);
  }
  byId("map-colour").addEventListener("change", draw);

  /* --- selecting */

  function select(found) {
    selected = found && new Set(found);
    picked = found && new Set(found.filter(point => point.image !== null).map(point => images[point.image]));
    byId("map-clear").hidden = !found;
    byId("map-status").textContent = found ? `${several(found.length, "image")} selected, ${count(picked.size)} of them in the gallery below, which shows only these.` : "";
    draw();
    refresh(false);
  }
  byId("map-clear").addEventListener("click", () => { chosen = null; byId("map-image").value = ""; byId("map-open").hidden = true; select(null); byId("map-image").focus(); });

  const box = byId("map-chart");
  box.addEventListener("pointerdown", event => {
    dragged = false;
    if (event.button || event.pointerType === "touch") return;  // a finger scrolls the page
    event.stopPropagation();  // else Plot pins its tip
    const way = [d3.pointer(event, chart)], line = svgElement("path", { class: "lasso" }), from = [event.clientX, event.clientY];
    const onMove = moved => {
      dragged ||= Math.hypot(moved.clientX - from[0], moved.clientY - from[1]) > LEAST_DRAG;
      if (!dragged) return;
      way.push(d3.pointer(moved, chart));
      line.setAttribute("d", `M${way.map(p => p.map(v => v.toFixed(1)).join()).join("L")}Z`);
      if (!line.isConnected) chart.append(line);
    };
    const onEnd = ended => {
      for (const [kind, listener] of [["pointermove", onMove], ["pointerup", onEnd], ["pointercancel", onEnd]]) box.removeEventListener(kind, listener);
      line.remove();
      if (!dragged || ended.type !== "pointerup") return;
      const x = chart.scale("x").apply, y = chart.scale("y").apply;
      select(points.filter(point => d3.polygonContains(way, [x(point.x), y(point.y)])));
    };
    box.setPointerCapture(event.pointerId);
    for (const [kind, listener] of [["pointermove", onMove], ["pointerup", onEnd], ["pointercancel", onEnd]]) box.addEventListener(kind, listener);
  }, { capture: true });

  box.addEventListener("click", event => {
    if (dragged) return;
    const [x, y] = d3.pointer(event, chart), at = ["x", "y"].map(key => chart.scale(key).apply);
    const far = point => Math.hypot(at[0](point.x) - x, at[1](point.y) - y);
    const nearest = d3.least(points.filter(point => point.image !== null), far);
    if (nearest && far(nearest) < 8) view([images[nearest.image]], 0);
  });

  /* --- one image by its name, for the keyboard */

  byId("map-ids").append(...points.map(point => element("option", { value: point.id })));
  byId("map-image").addEventListener("input", () => {
    chosen = byName.get(byId("map-image").value) ?? null;
    byId("map-open").hidden = !chosen || chosen.image === null;
    byId("map-status").textContent = chosen ? about(chosen) : "";
    draw();
  });
  byId("map-open").addEventListener("click", () => view([images[chosen.image]], 0));
  byId("map-form").addEventListener("submit", event => {
    event.preventDefault();
    if (chosen) select([...points].sort((a, b) => Math.hypot(a.x - chosen.x, a.y - chosen.y) - Math.hypot(b.x - chosen.x, b.y - chosen.y)).slice(0, NEAR));
    else byId("map-status").textContent = "No image of the map has this name.";
  });
  byId("map-clear").hidden = byId("map-open").hidden = true;
  draw();
}
