// One selection: a token, a site, a range of tokens, and up to four pinned tokens. It is drawn at
// once. Python is told of token, site and range when the keys have come to rest, and the address of
// all; pins are for the reader alone.

const REST = 120; // milliseconds after the last key
const PINS = 4;

/** Select a token, and a site if one is given; `told` is false where Python knows already. */
function select(view, token, { site, later = false, push = true, told = true } = {}) {
  const same = token === view.token && (site === undefined || site === view.site);
  if (same) return;
  const began = performance.now(), before = answerNow(view);
  view.token = token;
  if (site !== undefined) view.site = site;
  if (view.site !== null) view.lastSite = view.site;
  remember(view);
  mark(view);
  if (token !== null) scrollTo(view, view.spans[token]);
  if (site !== undefined && view.lenses.length && lensNow(view).ofCells) repaint(view);
  else if (before !== answerNow(view)) { paintMap(view); revealOnMap(view); drawPanel(view); }
  else { revealOnMap(view); drawPanel(view); }
  fillSiteChoice(view);
  announce(view);
  performance.measure("skipviz-select", { start: began });
  if (told) tell(view, { later, push });
}

function remember(view) {
  view.kept.set(view.key, { token: view.token, site: view.site, range: view.range, pins: view.pins });
}

/** Tell Python and the address, once the keys have come to rest. */
function tell(view, { later, push }) {
  clearTimeout(view.telling);
  const now = () => {
    writeAddress(view, push);
    tellSelected(view);
  };
  if (later) view.telling = setTimeout(now, REST); else now();
}

/** Tell Python what is selected, and what it asked for that was followed before. */
function tellSelected(view) { view.send("selected", [view.key, view.token, view.site, view.followed.get(view.key) ?? 0]); }

/** Tell Python the range, once it has come to rest. */
function tellRange(view) {
  clearTimeout(view.tellingRange);
  view.tellingRange = setTimeout(() => view.send("range", view.range && [view.key, ...view.range]), REST);
}

function announce(view) {
  view.said.textContent = view.token === null ? "No token selected" : describe(view, view.token, view.site).join(", ");
}

/** Escape takes back one thing after the other: token and site, the range, the pins. */
function clear(view) {
  if (view.token !== null || view.site !== null) select(view, null, { site: null });
  else if (view.range) setRange(view, null);
  else for (const token of [...view.pins]) pin(view, token);
}

function setRange(view, range) {
  if (String(range) === String(view.range)) return;
  view.range = range;
  tellRange(view);
  remember(view);
  writeAddress(view, false);
  mark(view);
  paintMarks(view);
  chips(view);
}

/** Pin a token, or take its pin away; the oldest goes when there are too many. */
function pin(view, token) {
  const had = view.pins.includes(token);
  setPins(view, had ? view.pins.filter((each) => each !== token) : [...view.pins, token].slice(-PINS));
  view.said.textContent = `${quoted(view, token)} ${had ? "is no longer pinned" : "is pinned"}`;
}

function setPins(view, pins) {
  if (String(pins) === String(view.pins)) return;
  view.pins = pins;
  remember(view);
  writeAddress(view, false);
  mark(view);
  paintMarks(view);
  drawPanel(view);
  chips(view);
}

/** What is chosen besides the selected token, each with a way to take it back. */
function chips(view) {
  const chip = (words, name, undo, colour) => {
    const button = make("button", `${words} ✕`, { type: "button", class: "chip", "aria-label": name });
    if (colour) button.style.setProperty("--pin", colour);
    button.addEventListener("click", () => { undo(); view.tokens.focus({ preventScroll: true }); });
    return button;
  };
  const { theme } = pageColours(view);
  const found = view.pins.map((token, i) => chip(`${i + 1} ${quoted(view, token)}`, `Unpin token ${token}`, () => pin(view, token), view.trace.palette.pins[theme][i]));
  if (view.range) found.unshift(chip(`Tokens ${view.range[0].toLocaleString("en")} to ${view.range[1].toLocaleString("en")}`, "Take back the range", () => setRange(view, null)));
  view.chips.replaceChildren(...found);
}

// ---- pointer and keys ------------------------------------------------------------------------

/** A press and a release on one token select it; a drag to another chooses what lies between. */
function listenForDrags(view) {
  let from = null, range = null;
  view.tokens.addEventListener("pointerdown", (event) => {
    from = event.button === 0 && event.pointerType !== "touch" && !event.shiftKey ? tokenAt(event.target) : null;
    range = null;
  });
  view.tokens.addEventListener("pointermove", (event) => {
    const to = from === null || !(event.buttons & 1) ? null : tokenAt(event.target);
    if (to === null || (to === from && !range)) return;
    range = [Math.min(from, to), endOfSpan(view, Math.max(from, to))];
    moveClass(view, "in-range", Array.from({ length: range[1] - range[0] + 1 }, (_, i) => range[0] + i));
  });
  view.tokens.addEventListener("click", (event) => {
    const token = tokenAt(event.target);
    if (range || token === null) return;
    if (event.shiftKey) pin(view, token); else select(view, token);
  });
  const release = () => { if (range) setRange(view, range); from = null; setTimeout(() => { range = null; }); };
  view.tokens.addEventListener("pointerup", release);
  view.tokens.addEventListener("pointerleave", release);
}

/** The last token that shares the characters of one. */
function endOfSpan(view, token) {
  while (token + 1 < view.trace.count && view.spans[token + 1] === view.spans[token]) token += 1;
  return token;
}

function step(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event, move = { ArrowLeft: -1, ArrowRight: 1 }[key];
  let target;
  if (move && event.shiftKey) widen(view, move);
  else if (move) target = sideways(view, move);
  else if (key === "Home") target = 0;
  else if (key === "End") target = Number(view.spans[view.trace.count - 1].dataset.token);
  else if (key === "ArrowUp" || key === "ArrowDown") target = otherLine(view, key === "ArrowDown" ? 1 : -1);
  else if (key === "Enter") target = view.token ?? view.hovered ?? 0;
  else if (key === "p" || key === "P") { if (view.token !== null) pin(view, view.token); }
  else if ((key === "[" || key === "]") && view.trace.sites.length) otherSite(view, key === "]" ? 1 : -1);
  else return;
  event.preventDefault();
  event.stopPropagation();
  if (target !== undefined && target !== null) select(view, target, { later: true });
}

/** Move the end of the range, from the selected token on. */
function widen(view, move) {
  const start = view.token ?? 0, [first, last] = view.range ?? [start, endOfSpan(view, start)];
  const end = move > 0 || last > endOfSpan(view, start) ? last : first;
  const next = nextSpan(view, end, move);
  if (next === null) return;
  setRange(view, [Math.min(start, next), endOfSpan(view, Math.max(start, next))]);
}

/** Choose the next or the previous site in running order. */
function otherSite(view, move) {
  const next = (view.site ?? view.lastSite - (view.site === null && move > 0 ? 1 : 0)) + move;
  select(view, view.token, { site: Math.max(0, Math.min(view.trace.sites.length - 1, next)), later: true, push: false });
}

// ---- the pop-up --------------------------------------------------------------------------------

function hover(view, token, event, site = null) {
  if (view.hovered !== token) {
    view.hovered = token;
    moveClass(view, "hover", token === null ? [] : [token]);
    paintMarks(view);
  }
  if (token === null || !event) { view.tip.classList.add("hidden"); return; }
  const [title, ...lines] = describe(view, token, site);
  view.tip.replaceChildren(make("b", title), lines.join("\n"));
  view.tip.classList.remove("hidden");
  const box = view.root.getBoundingClientRect();
  const left = Math.min(event.clientX - box.left + 14, box.width - view.tip.offsetWidth - 4);
  view.tip.style.left = Math.max(0, left) + "px";
  view.tip.style.top = event.clientY - box.top + 18 + "px";
}

/** What is said of a token, and of its decision at a site if one is meant, a line each. */
function describe(view, token, place) {
  const { trace } = view, lens = lensNow(view);
  const lines = [
    quoted(view, token),
    `token ${token}, id ${trace.id[token] < 0 ? "unknown" : trace.id[token]}, context ${countWords(trace.context[token])}`,
    `layers used ${Number.isNaN(trace.used[token]) ? "unknown" : trace.used[token]} of ${trace.layers}`,
    ...(trace.nextToken ? [`surprisal ${inNats(trace.surprisal[token])}, loss on next token ${inNats(trace.nll[token])}`] : []),
  ];
  const at = place ?? (lens.ofCells ? siteNow(view) : null);
  if (!["used", "nll", "surprisal", "ran", "margin"].includes(lens.stored))
    lines.push(`${lens.name}${lens.ofCells ? ` at ${trace.sites[at].label}` : ""} ${valueWords(lens, valueOf(view, lens, token, at))}`);
  if (at !== null) {
    const decision = decisionOf(trace, token, at), words = scoreWords(decision);
    lines.push(`${decision.site.label}: ${decision.word}, score ${words.score}, threshold ${words.limit}`);
  }
  return lines;
}
