// The canvas: text, map and panel. Python sends a trace once, and lenses when they are there;
// painting, hovering, scrolling and the panel happen here, and only what is selected goes back.

const COLLAPSED = "skipviz canvas collapsed";

export default function (component) {
  const { data, parentElement, setStateValue, setTriggerValue } = component;
  let view = VIEWS.get(parentElement);
  if (!view) {
    view = mount(parentElement);
    VIEWS.set(parentElement, view);
  }
  view.send = setStateValue;
  view.pick = data.picks ? (token, site) => setTriggerValue("cell", [view.key, token, site]) : null;
  view.flips = data.flips;
  view.askFlip = (token, site) => setTriggerValue("flip", [view.key, token, site]);
  view.open = (address) => setTriggerValue("address", address);
  load(view, data);
  return () => {
    view.resizes.disconnect();
    view.leaving.abort();
    clearTimeout(view.telling);
    clearTimeout(view.tellingRange);
    VIEWS.delete(parentElement);
  };
}

function mount(parent) {
  const find = (name) => parent.querySelector("." + name);
  const view = {
    root: find("view"), lensChoice: find("lens"), siteChoice: find("site"), siteLabel: find("site-label"),
    stretch: find("stretch"), stretchLabel: find("stretch-label"), legend: find("legend"), tokens: find("tokens"),
    mapSide: find("map-side"), canvas: find("map"), over: find("map-over"), head: find("map-head"), nav: find("map-nav"),
    scrub: find("scrub"), panel: find("panel-inside"), tip: find("tip"), said: find("said"), chips: find("chips"),
    query: find("query"), hitCount: find("hit-count"), hitButtons: [find("previous-hit"), find("next-hit")], jumped: find("jumped"), help: find("help"),
    token: null, site: null, lastSite: 0, range: null, pins: [], hovered: null, start: 0, spans: [], key: null, address: null,
    own: [], lenses: [], answers: [], seen: new Map(), followed: new Map(), clears: new Map(), lens: null, wantedLens: parameter("lens"), kept: new Map(), marked: new Map(), leaving: new AbortController(),
  };
  view.lensChoice.addEventListener("change", () => chooseLens(view, view.lensChoice.value));
  view.siteChoice.addEventListener("change", () => select(view, view.token, { site: Number(view.siteChoice.value), push: false }));
  view.stretch.addEventListener("change", () => repaint(view));
  view.tokens.addEventListener("pointerover", (event) => hover(view, tokenAt(event.target), event));
  view.tokens.addEventListener("pointerleave", () => hover(view, null));
  view.tokens.addEventListener("keydown", (event) => step(view, event));
  listenForDrags(view);
  listenForSearch(view, find);
  listenToMap(view, find);
  listenToFrame(view, find);
  listenToAddress(view, view.leaving.signal);
  listenToParts(view, view.leaving.signal);
  return view;
}

function listenToMap(view, find) {
  const over = (event) => { const { token, site } = cellAt(view, event); hover(view, token, event, site); };
  view.canvas.addEventListener("pointermove", over);
  view.canvas.addEventListener("pointerleave", () => hover(view, null));
  view.canvas.addEventListener("click", (event) => clickMap(view, event));
  view.panel.addEventListener("pointerover", (event) => {
    const cell = event.target.closest?.("[data-cell]")?.dataset.cell.split(" ").map(Number);
    hover(view, cell ? cell[0] : null, event, cell?.[1]);
  });
  view.panel.addEventListener("pointerleave", () => hover(view, null));
  view.panel.addEventListener("click", (event) => {
    const cell = event.target.closest?.("[data-cell]")?.dataset.cell.split(" ").map(Number);
    if (cell) select(view, cell[0], { site: cell[1] });
  });
  view.scrub.addEventListener("input", () => scroll(view, Number(view.scrub.value)));
  find("earlier").addEventListener("click", () => scroll(view, view.start - Math.ceil(shown(view) / 2)));
  find("later").addEventListener("click", () => scroll(view, view.start + Math.ceil(shown(view) / 2)));
  let height = 0;
  view.resizes = new ResizeObserver(() => {
    if (!view.trace) return;
    paintMap(view);
    // A text that had no height yet could not be scrolled.
    if (!height && view.tokens.clientHeight && view.token !== null) scrollTo(view, view.spans[view.token]);
    height = view.tokens.clientHeight;
  });
  for (const element of [view.canvas, view.tokens]) view.resizes.observe(element);
}

/** Collapsing, help, and the change of theme. */
function listenToFrame(view, find) {
  const button = find("collapse");
  const collapse = (hide) => {
    view.root.classList.toggle("collapsed", hide);
    button.setAttribute("aria-expanded", String(!hide));
    button.textContent = hide ? "▸ Show text and map" : "▾ Hide text and map";
    sessionStorage.setItem(COLLAPSED, hide ? "yes" : "no");
  };
  collapse(sessionStorage.getItem(COLLAPSED) === "yes");
  button.addEventListener("click", () => collapse(!view.root.classList.contains("collapsed")));
  find("help-button").addEventListener("click", () => view.help.showModal());
  find("help-close").addEventListener("click", () => view.help.close());
  view.help.addEventListener("keydown", (event) => event.stopPropagation());
  view.root.addEventListener("keydown", (event) => {
    if (event.target.matches?.("input[type=search]")) return;
    if (event.key === "?") view.help.showModal();
    else if (event.key === "/") view.query.focus();
    else if (event.key === "Escape") clear(view);
    else return;
    event.preventDefault();
  });
  view.root.addEventListener("transitionend", (event) => event.propertyName === "color" && event.target === view.root && repaint(view));
}

/** Take what Python sent: a trace, unless it is the one already shown, and its lenses. */
function load(view, data) {
  const another = view.key !== data.key, first = view.key === null;
  view.address = data.address;
  if (another) {
    clearTimeout(view.telling);
    view.key = data.key;
    view.trace = readTrace(data);
    view.compact = data.compact;
    view.root.classList.toggle("compact", data.compact);
    view.root.querySelector(".most-wrong").classList.toggle("hidden", !data.nextToken);
    view.start = 0;
    view.lastSite = 0;
    view.root.style.setProperty("--text-height", data.height + "px");
    for (const [unit, colour] of Object.entries(data.palette.units)) view.root.style.setProperty(`--unit-${unit}`, colour);
    view.marked.clear();
    const { trace } = view;
    writeText(view, {
      count: trace.count, span: trace.span, sequence: trace.sequence,
      source: { get: (i) => trace.sources[trace.sequence[i]] }, text: { get: (i) => trace.texts[i] },
    });
    view.tokens.scrollTop = 0;
    view.query.value = "";
  }
  if (another) view.own = readLenses(data, view.trace);
  takeParts(view);
  if (another) selectAtFirst(view, first, data.selected);
  repaint(view);
  if (another) {
    search(view);
    chips(view);
    writeAddress(view, !first && !view.goingBack);
    if (!first) uncover();
    view.goingBack = false;
  }
  followParts(view);
  performance.mark("skipviz-painted");
}

/** Close the side bar where it lies over the page, so that what was run is seen. */
function uncover() {
  if (window.innerWidth < 768) document.querySelector("[data-testid=stSidebarCollapseButton] button")?.click();
}

/** Select what the address names, or what was selected when this text was last here; in a text that
 * is new, the token that Python names. */
function selectAtFirst(view, first, selected) {
  const isNew = !view.kept.has(view.key) && !view.goingBack && parameter("trace") !== view.address;
  const kept = view.kept.get(view.key) ?? { token: null, site: null, range: null, pins: [] };
  Object.assign(view, kept);
  const named = first || parameter("trace") !== null ? readAddress(view) : null;
  if (named && named.token !== null) {
    view.token = named.token;
    view.site = named.site;
  }
  if (isNew && view.token === null && selected !== null) view.token = spanOf(view, selected);
  if (named?.range) view.range = named.range;
  if (named?.pins.length) view.pins = named.pins;
  // Python has kept nothing of a text if another was selected in since.
  if (view.token !== null || view.site !== null) tell(view, { later: true, push: false });
  // Python reads the address too until it is told what is selected.
  if (named?.token != null || (first && parameter("token") !== null)) tellSelected(view);
  if (view.site !== null) view.lastSite = view.site;
  if (view.range) tellRange(view);
  remember(view);
  if (view.token === null) return;
  // How high a new text is, is known once it was drawn: it cannot be scrolled before.
  const show = () => { if (view.token !== null) scrollTo(view, view.spans[view.token]); };
  requestAnimationFrame(() => requestAnimationFrame(show));
  view.start = Math.max(0, view.token - Math.floor(shown(view) / 2));
}

function fillLensChoice(view) {
  view.lensChoice.replaceChildren(...view.lenses.map((lens) => {
    const option = new Option(lens.name + (lens.known ? "" : " (unknown)"), lens.slug);
    option.disabled = !lens.known;
    return option;
  }));
  const can = (slug) => view.lenses.some((lens) => lens.slug === slug && lens.known);
  view.wantedLens ??= view.lenses[0].slug;
  view.lens = can(view.wantedLens) ? view.wantedLens : view.lenses.find((lens) => lens.known)?.slug ?? view.lenses[0].slug;
  view.lensChoice.value = view.lens;
  fillSiteChoice(view);
}

function fillSiteChoice(view) {
  if (view.sitesOf !== view.key) {
    view.sitesOf = view.key;
    view.siteChoice.replaceChildren(...view.trace.sites.map((site, i) =>
      new Option(`layer ${site.layer} ${view.trace.palette.names[site.unit]}${site.visit ? `, visit ${site.visit + 1}` : ""}`, String(i))));
  }
  if (view.trace.sites.length) view.siteChoice.value = String(siteNow(view));
}

function chooseLens(view, slug) {
  view.lens = view.wantedLens = slug;
  repaint(view);
  writeAddress(view, false);
}

/** Paint everything by the lens and mark what is selected. */
function repaint(view) {
  const lens = lensNow(view);
  view.siteLabel.classList.toggle("hidden", !lens.ofCells);
  view.stretchLabel.classList.toggle("hidden", lens.scale === "categories");
  paintText(view);
  mark(view);
  paintMap(view);
  drawPanel(view);
  chips(view);
}

function clickMap(view, event) {
  const { token, site } = cellAt(view, event);
  if (token === null) return;
  const span = Number(view.spans[token].dataset.token);
  if (event.shiftKey) pin(view, span);
  else select(view, site === null ? span : token, { site });
  if (view.pick && site !== null) view.pick(token, site);
}
