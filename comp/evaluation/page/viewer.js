/* Heat map and zoom of the image that is open. */

/* Light the heat map of label c; null: none */
function light(c) {
  lit = c !== null && list[place].maps[c] ? c : null;
  const canvas = byId("heat"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const button of byId("viewer-labels").querySelectorAll("button[data-label]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.label) === lit));
  }
  byId("heat-controls").hidden = lit === null;
  byId("heat-about").textContent = lit === null ? "" : `Coloured where there is more of ${ANSWERS_NUMBERS ? `what raises ${classes[lit].name}` : `the evidence that speaks for ${classes[lit].name}`} (Grad-CAM${data.maps_by ? `, ${data.maps_by} only` : ""}).`;
  if (lit === null) return;
  const [height, width, text] = list[place].maps[lit], bytes = atob(text);
  const small = element("canvas", { width, height }), pixels = new ImageData(width, height);
  for (let i = 0; i < bytes.length; i++) {
    const v = bytes.charCodeAt(i), { r, g, b } = HEAT[v];
    pixels.data.set([r, g, b, v], 4 * i);
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}
const HEAT = d3.range(256).map(v => d3.rgb(ramp(v / 255)));

byId("heat-ramp").style.background = RAMP;
const fade = () => { byId("heat").style.opacity = byId("opacity").value / 100; };
byId("opacity").addEventListener("input", fade);
fade();
/* While the button is held, by pointer or keyboard, the picture is seen without the heat map */
const hold = held => { byId("heat").hidden = held; byId("compare").setAttribute("aria-pressed", String(held)); };
for (const [start, ...ends] of [["pointerdown", "pointerup", "pointerleave", "pointercancel"], ["keydown", "keyup", "blur"]]) {
  byId("compare").addEventListener(start, event => { if (start === "pointerdown" || event.key === " " || event.key === "Enter") hold(true); });
  for (const end of ends) byId("compare").addEventListener(end, () => hold(false));
}
byId("compare").addEventListener("contextmenu", event => event.preventDefault());  // of a long touch

function zoom(times) {
  const frame = byId("frame"), [x, y] = [frame.clientWidth / 2, frame.clientHeight / 2], [left, top] = [frame.scrollLeft + x, frame.scrollTop + y];
  byId("zoom").value = times;
  byId("picture").style.width = `${100 * times}%`;
  frame.classList.toggle("zoomed", times > 1);
  frame.scrollTo(left * times / zoomed - x, top * times / zoomed - y);  // the middle stays
  zoomed = times;
}
byId("zoom").addEventListener("input", () => zoom(Number(byId("zoom").value)));
byId("frame").addEventListener("dblclick", () => zoom(zoomed > 1 ? 1 : 3));
