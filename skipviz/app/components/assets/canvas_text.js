// The text: painting it with a lens, and marking in it what is selected, pinned, found and chosen.

/** Paint the text and write its legend. */
function paintText(view) {
  const began = performance.now();
  const { trace } = view, lens = lensNow(view), place = siteNow(view);
  const paint = painter(view, lens, place);
  const memo = new Map();
  let last = null;
  for (let i = 0; i < trace.count; i++) {
    const span = view.spans[i];
    if (span === last) continue;
    last = span;
    const value = valueOf(view, lens, i, place);
    let style = memo.get(value);
    if (style === undefined) memo.set(value, (style = styleOf(paint(value))));
    if (span.skipvizStyle === style) continue;
    span.skipvizStyle = style;
    span.style.cssText = style ?? "";
    span.classList.toggle("unknown", style === null);
  }
  legend(view, lens, place);
  performance.measure("skipviz-recolour", { start: began });
}

/** The style of a colour; null if the value is unknown. */
function styleOf(colour) {
  if (colour === undefined) return null;
  return colour === null ? "" : `background:${css(colour)};color:${inkOn(colour)}`;
}

function legend(view, lens, place) {
  const { trace } = view, start = lens.ofCells ? place * trace.count : 0;
  const values = lens.values.subarray(start, start + trace.count);
  const where = lens.ofCells ? ` at ${trace.sites[place].label}` : "";
  const title = document.createElement("b");
  title.textContent = lens.name + where;
  view.legend.replaceChildren(title, ...keysOf(view, lens, values, place));
}

/** Move a class from the spans that had it to others. */
function moveClass(view, name, tokens) {
  for (const span of view.marked.get(name) ?? []) span.classList.remove(name);
  const spans = [...new Set(tokens.map((token) => view.spans[token]))];
  for (const span of spans) span.classList.add(name);
  view.marked.set(name, spans);
}

/** Mark the selected token, the pinned ones and the range. */
function mark(view) {
  for (const span of view.marked.get("selected") ?? []) span.removeAttribute("aria-selected");
  moveClass(view, "selected", view.token === null ? [] : [view.token]);
  view.tokens.removeAttribute("aria-activedescendant");
  if (view.token !== null) {
    view.spans[view.token].setAttribute("aria-selected", "true");
    view.tokens.setAttribute("aria-activedescendant", view.spans[view.token].id);
  }
  for (const span of view.marked.get("pinned") ?? []) { delete span.dataset.pin; span.style.removeProperty("--pin"); }
  moveClass(view, "pinned", view.pins);
  const { theme } = pageColours(view);
  view.pins.forEach((token, i) => {
    view.spans[token].dataset.pin = String(i + 1);
    view.spans[token].style.setProperty("--pin", view.trace.palette.pins[theme][i]);
  });
  const range = view.range ?? [0, -1];
  moveClass(view, "in-range", Array.from({ length: range[1] - range[0] + 1 }, (_, i) => range[0] + i));
}

/** The token of the next or previous line that lies nearest below or above the selected one. */
function otherLine(view, direction) {
  if (view.token === null) return 0;
  const from = view.spans[view.token].getBoundingClientRect();
  let best = null, line = null;
  for (let i = sideways(view, direction); i !== null; i = nextSpan(view, i, direction)) {
    const box = view.spans[i].getClientRects()[0] ?? view.spans[i].getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    const gap = Math.abs(box.left - from.left);
    if (best === null || gap < best.gap) best = { gap, i };
  }
  return best?.i ?? null;
}

function sideways(view, move) { return view.token === null ? 0 : nextSpan(view, view.token, move); }
