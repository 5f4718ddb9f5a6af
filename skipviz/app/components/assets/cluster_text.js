// The text in the colours of its clusters. Tokens that are not looked at are faint; a click sends
// the token to Python.

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let view = VIEWS.get(parentElement);
  if (!view) {
    view = mount(parentElement);
    VIEWS.set(parentElement, view);
  }
  view.send = (token) => setTriggerValue("clicked", [view.key, token]);
  if (view.key !== data.key) write(view, data);
  light(view, data.lit ? data.lit.getChild("token").toArray() : null);
  return () => VIEWS.delete(parentElement);
}

function mount(parent) {
  const view = {
    root: parent.querySelector(".view"),
    legend: parent.querySelector(".legend"),
    tokens: parent.querySelector(".tokens"),
    key: null, spans: [], selected: null, kept: new Map(),
  };
  view.tokens.addEventListener("click", (event) => select(view, tokenAt(event.target)));
  view.tokens.addEventListener("keydown", (event) => step(view, event));
  return view;
}

/** Write the text in the colours of its clusters. */
function write(view, data) {
  const column = (name) => data.tokens.getChild(name);
  const cluster = column("cluster").toArray();
  view.key = data.key;
  view.selected = null;
  view.tokens.removeAttribute("aria-activedescendant");
  const text = {
    count: data.tokens.numRows, text: column("text"), source: column("source"),
    sequence: column("sequence").toArray(), span: column("span").toArray(),
  };
  writeText(view, text, (element, i) => {
    element.title = `token ${i}: ${nameOf(cluster[i])}`;
    colour(element, data, cluster[i]);
  });
  view.tokens.style.setProperty("--text-height", data.height + "px");
  view.tokens.scrollTop = 0;
  legend(view, data, cluster);
  // What was clicked last in a text is marked again when it comes back.
  const kept = view.kept.get(data.key);
  if (kept !== undefined) pick(view, kept);
}

function nameOf(cluster) { return cluster < 0 ? "no cluster" : `cluster ${cluster}`; }

function colour(element, data, cluster) {
  if (cluster < 0) return;
  element.style.background = data.colours[cluster % data.colours.length];
  element.style.color = data.inks[cluster % data.inks.length];
}

function legend(view, data, cluster) {
  const sizes = new Map();
  for (const each of cluster) sizes.set(each, (sizes.get(each) ?? 0) + 1);
  const place = (each) => (each < 0 ? Infinity : each);
  const keys = [...sizes.keys()].sort((a, b) => place(a) - place(b));
  view.legend.replaceChildren(...keys.map((each) => {
    const key = document.createElement("span"), swatch = document.createElement("span");
    key.className = "key";
    swatch.className = "swatch";
    colour(swatch, data, each);
    key.append(swatch, `${nameOf(each)}: ${sizes.get(each).toLocaleString("en")} tokens`);
    return key;
  }));
}

/** Make tokens that are not looked at faint, and bring the first of the others into view. */
function light(view, lit) {
  const bright = lit ? new Set(Array.from(lit, (token) => view.spans[token])) : null;
  let first = null;
  for (const span of new Set(view.spans)) {
    const faint = bright !== null && !bright.has(span);
    span.classList.toggle("faint", faint);
    if (bright !== null && !faint) first ??= span;
  }
  if (first) scrollTo(view, first);
}

/** Each click counts, also on the same token again: another may have been selected elsewhere. */
function select(view, token) {
  if (token === null) return;
  if (view.selected !== null) {
    view.spans[view.selected].classList.remove("selected");
    view.spans[view.selected].removeAttribute("aria-selected");
  }
  pick(view, token);
  view.kept.set(view.key, view.selected);
  view.send(view.selected);
}

function pick(view, token) {
  view.selected = token;
  const span = view.spans[view.selected];
  span.classList.add("selected");
  span.setAttribute("aria-selected", "true");
  view.tokens.setAttribute("aria-activedescendant", span.id);
  scrollTo(view, span);
}

function step(view, event) {
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!move) return;
  event.preventDefault();
  const token = view.selected === null ? 0 : nextSpan(view, view.selected, move);
  if (token !== null) select(view, token);
}
