// The text in the colours of its clusters. Tokens that are not looked at are faint; a click sends
// the token to Python.

const CHUNK = 200;

/** What each mounted view remembers between runs of Python. */
const VIEWS = new WeakMap();

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  let view = VIEWS.get(parentElement);
  if (!view) {
    view = mount(parentElement);
    VIEWS.set(parentElement, view);
  }
  view.send = (token) => setStateValue("selected", [view.key, token]);
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
  view.tokens.addEventListener("click", (event) => select(view, event.target?.dataset?.token));
  view.tokens.addEventListener("keydown", (event) => step(view, event));
  return view;
}

/** Write the text, a span for each group of tokens that share characters; as text, never as HTML. */
function write(view, data) {
  const column = (name) => data.tokens.getChild(name);
  const count = data.tokens.numRows;
  const text = column("text"), source = column("source"), sequence = column("sequence").toArray();
  const span = column("span").toArray(), cluster = column("cluster").toArray();
  const parts = document.createDocumentFragment();
  view.spans = new Array(count);
  view.key = data.key;
  view.selected = null;
  view.tokens.removeAttribute("aria-activedescendant");
  let chunk = null, filled = 0;
  for (let i = 0; i < count; i++) {
    if (i && span[i] === span[i - 1]) { view.spans[i] = view.spans[i - 1]; continue; }
    if (data.several && (!i || sequence[i] !== sequence[i - 1])) {
      const title = document.createElement("h4");
      title.textContent = source.get(i);
      parts.append(title);
      chunk = null;
    }
    if (!chunk) { chunk = document.createElement("div"); chunk.className = "chunk"; parts.append(chunk); filled = 0; }
    const element = document.createElement("span");
    element.textContent = visible(text.get(i));
    element.dataset.token = String(i);
    element.id = `token-${i}`;
    element.title = `token ${i}: ${nameOf(cluster[i])}`;
    element.setAttribute("role", "option");
    colour(element, data, cluster[i]);
    chunk.append(element);
    view.spans[i] = element;
    filled += 1;
    if (filled >= CHUNK && element.textContent.endsWith("\n")) chunk = null;
  }
  view.tokens.replaceChildren(parts);
  view.tokens.style.setProperty("--text-height", data.height + "px");
  view.tokens.scrollTop = 0;
  legend(view, data, cluster);
  // What was selected in a text is selected again when it comes back: Python has kept it too.
  const kept = view.kept.get(data.key);
  if (kept !== undefined) pick(view, kept);
}

/** Show control characters as their pictures; line ends and tabs stay what they are. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
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
  if (first) reveal(view, first);
}

function reveal(view, span) {
  const top = span.getBoundingClientRect().top - view.tokens.getBoundingClientRect().top;
  if (top < 0 || top > view.tokens.clientHeight - 30) view.tokens.scrollTop += top - view.tokens.clientHeight / 2;
}

function select(view, token) {
  if (token === undefined || Number(token) === view.selected) return;
  if (view.selected !== null) {
    view.spans[view.selected].classList.remove("selected");
    view.spans[view.selected].removeAttribute("aria-selected");
  }
  pick(view, Number(token));
  view.kept.set(view.key, view.selected);
  view.send(view.selected);
}

function pick(view, token) {
  view.selected = token;
  const span = view.spans[view.selected];
  span.classList.add("selected");
  span.setAttribute("aria-selected", "true");
  view.tokens.setAttribute("aria-activedescendant", span.id);
  reveal(view, span);
}

function step(view, event) {
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!move) return;
  event.preventDefault();
  if (view.selected === null) { select(view, 0); return; }
  let i = view.selected;
  while (i >= 0 && i < view.spans.length && view.spans[i] === view.spans[view.selected]) i += move;
  if (view.spans[i]) select(view, view.spans[i].dataset.token);
}
