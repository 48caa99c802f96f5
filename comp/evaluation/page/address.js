/* What is shown, kept in the page's address: #image=train_7&kind=missed&label=water&order=p&section=images&sort=recall+ascending */

const address = new URLSearchParams();
const FILTERS = ["label", "kind", "order"], FIRST = Object.fromEntries(FILTERS.map(id => [id, byId(id).value]));

function remember(key, value) {
  if (value) address.set(key, value); else address.delete(key);
  address.sort();
  history.replaceState(null, "", address.size ? "#" + address : location.href.split("#")[0]);
}

function rememberFilters() {
  for (const id of FILTERS) {
    const { value, selectedOptions: [option] } = byId(id);
    remember(id, value === FIRST[id] ? "" : id === "label" && value ? option.textContent : value);
  }
}

/* Show what an address says; what it doesn't name stays at its first value, and what isn't there is passed over */
function restore() {
  if (!location.hash.includes("=")) return;  // none, or that of a link inside the page
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of [...address.keys()]) address.delete(key);
  for (const id of FILTERS) {
    const option = asked.has(id) && [...byId(id).options].find(option => asked.get(id) === (id === "label" && option.value ? option.textContent : option.value));
    byId(id).value = option ? option.value : FIRST[id];
  }
  refresh(false);
  rememberFilters();
  const [, title, direction] = (asked.get("sort") || "").match(/^(.+) (ascending|descending)$/) || [];
  const head = [...byId("classes-table").querySelectorAll("thead th")].find(head => head.textContent === title);
  for (let n = 0; head && n < 2 && head.getAttribute("aria-sort") !== direction; n++) head.querySelector("button").click();
  const section = [...document.querySelectorAll("main > section")].find(section => section.id === asked.get("section"));
  if (section) go(section.id);
  const image = images.find(image => image.id === asked.get("image")), at = found.indexOf(image);
  if (image) view(at < 0 ? [image] : found, Math.max(0, at));
  else if (viewer.open) viewer.close();
}

function go(id) {
  byId(id).scrollIntoView();
  remember("section", id);
}

/* Show the images of a label */
function filterGallery(c) {
  byId("label").value = String(c);
  byId("kind").value = FIRST.kind;
  refresh(false);
  rememberFilters();
  go("images");
  byId("label").focus({ preventScroll: true });
}

byId("filters").addEventListener("change", rememberFilters);
viewer.addEventListener("show", () => remember("image", list[place].id));
viewer.addEventListener("close", () => remember("image", ""));
byId("classes-table").addEventListener("click", event => {
  const head = event.target.closest("th[aria-sort]"), row = event.target.closest("tbody tr");
  if (head) remember("sort", `${head.textContent} ${head.getAttribute("aria-sort")}`);
  if (row) filterGallery(row.querySelector("button").dataset.label);
});

/* The list of sections stays in sight and marks the one that is read */
const links = new Map([...byId("sections").querySelectorAll("a")].map(link => [link.hash.slice(1), link]));
byId("sections").addEventListener("click", event => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.hash.slice(1));
});
const reading = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(target.id), bar = byId("sections");
    link.setAttribute("aria-current", "true");
    bar.scrollLeft = link.offsetLeft - bar.clientWidth / 2;
  }
}, { rootMargin: "-20% 0px -75% 0px" });
for (const id of links.keys()) reading.observe(byId(id));

addEventListener("hashchange", restore);
restore();
