// The text as a heatmap and, under it, the map of layers and tokens. Python sends the data once;
// colouring, hovering and scrolling happen here, and only the selected token goes back.

const CELL = 3; // pixels per token, at least

const MODES = {
  layers: "layers used",
  nll: "loss on the next token",
  surprisal: "surprisal of the token",
  decision: "decision at one site",
  score: "score at one site",
};

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  let view = VIEWS.get(parentElement);
  if (!view) {
    view = mount(parentElement);
    VIEWS.set(parentElement, view);
    const selected = component.data.start;
    view.selected = typeof selected === "number" && selected >= 0 ? selected : null;
    view.kept.set(data.key, view.selected);
  }
  view.send = (token) => setStateValue("selected", [view.key, token]);
  load(view, data);
  return () => {
    view.resizes.disconnect();
    VIEWS.delete(parentElement);
  };
}

function mount(parent) {
  const find = (name) => parent.querySelector("." + name);
  const view = {
    root: find("view"), colour: find("colour"), site: find("site"), siteLabel: find("site-label"),
    stretch: find("stretch"), stretchLabel: find("stretch-label"), legend: find("legend"),
    tokens: find("tokens"), canvas: find("map"), head: find("map-head"), nav: find("map-nav"),
    scrub: find("scrub"), tip: find("tip"), said: find("said"),
    selected: null, hovered: null, start: 0, spans: [], key: null, kept: new Map(),
  };
  for (const [value, name] of Object.entries(MODES)) view.colour.add(new Option(name, value));
  view.colour.addEventListener("change", () => recolour(view));
  view.site.addEventListener("change", () => recolour(view));
  view.stretch.addEventListener("change", () => recolour(view));
  view.tokens.addEventListener("pointerover", (event) => hover(view, tokenAt(event.target), event));
  view.tokens.addEventListener("pointerleave", () => hover(view, null));
  view.tokens.addEventListener("click", (event) => select(view, tokenAt(event.target)));
  view.tokens.addEventListener("keydown", (event) => step(view, event));
  view.canvas.addEventListener("pointermove", (event) => hover(view, cellAt(view, event).token, event, cellAt(view, event).site));
  view.canvas.addEventListener("pointerleave", () => hover(view, null));
  view.canvas.addEventListener("click", (event) => clickMap(view, event));
  view.scrub.addEventListener("input", () => scroll(view, Number(view.scrub.value)));
  parent.querySelector(".earlier").addEventListener("click", () => scroll(view, view.start - Math.ceil(shown(view) / 2)));
  parent.querySelector(".later").addEventListener("click", () => scroll(view, view.start + Math.ceil(shown(view) / 2)));
  view.root.addEventListener("transitionend", (event) => event.propertyName === "color" && event.target === view.root && recolour(view));
  view.resizes = new ResizeObserver(() => view.trace && paint(view));
  view.resizes.observe(view.root);
  return view;
}

/** Take a trace, unless it is the one already shown. */
function load(view, data) {
  if (view.key === data.key) return;
  const isNew = view.key !== null;
  view.key = data.key;
  const column = (table, name) => { const child = table.getChild(name); return child ? child.toArray() : null; };
  const sites = Array.from({ length: data.sites.numRows }, (_, i) => ({
    label: String(data.sites.getChild("label").get(i)),
    layer: Number(data.sites.getChild("layer").get(i)),
    visit: Number(data.sites.getChild("visit").get(i)),
    row: Number(data.sites.getChild("row").get(i)),
    unit: String(data.sites.getChild("unit").get(i)),
    polarity: Number(data.sites.getChild("polarity").get(i)),
    skipPath: String(data.sites.getChild("skip_path").get(i)),
    executed: column(data.tokens, "e" + i),
    score: column(data.tokens, "s" + i),
    threshold: column(data.tokens, "t" + i) ?? Number(data.sites.getChild("threshold").get(i)),
  }));
  view.trace = {
    sites,
    count: data.tokens.numRows,
    layers: data.layers,
    rows: data.rows,
    palette: data.palette,
    fewest: data.fewest, most: data.most,
    margin: data.margin,
    text: data.tokens.getChild("text"),
    source: data.tokens.getChild("source"),
    sequence: column(data.tokens, "sequence"),
    span: column(data.tokens, "span"),
    id: column(data.tokens, "token_id"),
    context: column(data.tokens, "context"),
    used: column(data.tokens, "layers_used"),
    nll: column(data.tokens, "nll"),
    surprisal: column(data.tokens, "surprisal"),
  };
  // What was selected in a text is selected again when it comes back: Python has kept it too.
  if (isNew) view.selected = view.kept.get(data.key) ?? null;
  if (view.selected !== null && view.selected >= view.trace.count) view.selected = null;
  view.start = 0;
  view.root.style.setProperty("--text-height", data.height + "px");
  fillSites(view);
  writeText(view, view.trace);
  recolour(view);
  if (view.selected !== null) reveal(view);
  else view.tokens.scrollTop = 0;
  performance.mark("skipviz-painted");
}

function fillSites(view) {
  const before = view.site.value;
  view.site.replaceChildren(...view.trace.sites.map((site, i) =>
    new Option(`layer ${site.layer} ${view.trace.palette.names[site.unit]}${site.visit ? `, visit ${site.visit + 1}` : ""}`, String(i))));
  if (before && Number(before) < view.trace.sites.length) view.site.value = before;
  for (const option of view.colour.options)
    option.disabled = !view.trace.sites.length && (option.value === "decision" || option.value === "score");
  if (view.colour.selectedOptions[0]?.disabled) view.colour.value = "nll";
}

function rgb(hex) { return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)); }

function along(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const low = Math.min(colours.length - 2, Math.floor(place));
  return blend(rgb(colours[low]), rgb(colours[low + 1]), place - low);
}

function blend(from, to, share) { return from.map((v, i) => Math.round(v + (to[i] - v) * share)); }

function css(colour) { return `rgb(${colour.join(",")})`; }

function inkOn(colour) {
  const [r, g, b] = colour.map((v) => (v / 255) ** 2.2);
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (light + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff";
}

function pageColours(view) {
  const style = getComputedStyle(view.root);
  const parse = (value) => (value.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
  return { page: parse(style.backgroundColor), ink: parse(style.color) };
}

/** How far a score speaks for running, on its own scale; NaN where the gate was not asked. */
function marginOf(site, i) {
  return site.polarity * (site.score[i] - (typeof site.threshold === "number" ? site.threshold : site.threshold[i]));
}

/** Return the scale of the chosen colouring: its ends, its words, and a colour for each token. */
function scaleOf(view) {
  const { trace } = view;
  const mode = view.colour.value;
  const site = trace.sites[Number(view.site.value)];
  const { page } = pageColours(view);
  if (mode === "decision" && site) {
    const on = rgb(trace.palette.units[site.unit]);
    return { kind: "decision", on, at: (i) => (site.executed[i] ? on : null), name: site };
  }
  if (mode === "score" && site) {
    const margin = (i) => marginOf(site, i);
    const limits = { low: -trace.margin, high: trace.margin };
    return ramp(`gate score minus threshold, ${site.label}${site.polarity < 0 ? ", sign reversed" : ""} (above 0 runs)`, limits, (share) => along(trace.palette.margins, share), margin, view, true);
  }
  if (mode === "layers")
    return ramp(`layers used, of ${trace.layers}`, { low: trace.fewest, high: trace.most }, (share) => along(trace.palette.layers, share), (i) => trace.used[i], view);
  const values = mode === "nll" ? trace.nll : trace.surprisal;
  const words = mode === "nll" ? "loss on the next token, nats" : "surprisal, nats";
  return ramp(words, { low: 0, high: trace.palette.lossTop }, (share) => blend(page, rgb(trace.palette.loss), share), (i) => values[i], view);
}

function ramp(words, fixed, colour, value, view, symmetric = false) {
  const ends = view.stretch.checked ? stretched(view, value, fixed, symmetric) : fixed;
  const share = (v) => (ends.high > ends.low ? (v - ends.low) / (ends.high - ends.low) : 1);
  const at = (i) => { const v = value(i); return v === null || Number.isNaN(v) ? null : colour(share(v)); };
  return { kind: "ramp", words, ends, colour, at };
}

/** The ends of the scale where nine tenths of this text lie. */
function stretched(view, value, fixed, symmetric) {
  const values = [];
  for (let i = 0; i < view.trace.count; i++) { const v = value(i); if (v !== null && !Number.isNaN(v)) values.push(v); }
  values.sort((a, b) => a - b);
  if (!values.length) return fixed;
  const at = (share) => values[Math.round(share * (values.length - 1))];
  if (symmetric) { const most = Math.max(Math.abs(at(0.05)), Math.abs(at(0.95))) || 1; return { low: -most, high: most }; }
  return { low: at(0.05), high: at(0.95) };
}

function recolour(view) {
  const mode = view.colour.value;
  const bySite = mode === "decision" || mode === "score";
  view.siteLabel.classList.toggle("hidden", !bySite);
  view.stretchLabel.classList.toggle("hidden", mode === "decision");
  const scale = scaleOf(view);
  let last = null;
  for (let i = 0; i < view.trace.count; i++) {
    const span = view.spans[i];
    if (span === last) continue;
    last = span;
    const colour = scale.at(i);
    span.style.background = colour ? css(colour) : "";
    span.style.color = colour ? inkOn(colour) : "";
  }
  legend(view, scale);
  mark(view);
  paint(view);
}

function legend(view, scale) {
  const entry = (colour, words) => {
    const item = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour;
    item.append(swatch, " " + words);
    return item;
  };
  if (scale.kind === "decision") {
    view.legend.replaceChildren(entry(css(scale.on), `${scale.name.label} ran`), entry("transparent", scale.name.skipPath === "adapter" ? "skipped (an adapter ran instead)" : "skipped"));
    return;
  }
  const bar = document.createElement("span");
  bar.className = "ramp";
  const stops = Array.from({ length: 11 }, (_, i) => css(scale.colour(i / 10)));
  bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const round = (v) => (Math.abs(v) >= 10 || Number.isInteger(v) ? String(Math.round(v * 10) / 10) : digits(v));
  const text = (words) => { const item = document.createElement("span"); item.textContent = words; return item; };
  const more = view.stretch.checked ? " (5th to 95th percentile of this text)" : "";
  view.legend.replaceChildren(text(`${scale.words}:`), text(round(scale.ends.low)), bar, text(round(scale.ends.high) + more));
}

/** Two decimals, or two digits where these would be noughts. */
function digits(v) { return Math.abs(v) < 0.1 && v !== 0 ? String(Number(v.toPrecision(2))) : v.toFixed(2); }

function tokenAt(target) {
  const token = target?.dataset?.token;
  return token === undefined ? null : Number(token);
}

function hover(view, token, event, site) {
  if (view.hovered !== token) {
    if (view.hovered !== null) view.spans[view.hovered]?.classList.remove("hover");
    view.hovered = token;
    if (token !== null) view.spans[token].classList.add("hover");
    paint(view);
  }
  if (token === null || !event) { view.tip.style.display = "none"; return; }
  describe(view, token, site);
  const box = view.root.getBoundingClientRect();
  view.tip.style.display = "block";
  const left = Math.min(event.clientX - box.left + 14, box.width - view.tip.offsetWidth - 4);
  view.tip.style.left = Math.max(0, left) + "px";
  view.tip.style.top = event.clientY - box.top + 18 + "px";
}

function describe(view, token, site) {
  const title = document.createElement("b");
  title.textContent = JSON.stringify(view.spans[token].textContent);
  view.tip.replaceChildren(title, about(view, token, site).join("\n"));
}

/** What is said of a token, and of its decision at a site if one is meant, a line each. */
function about(view, token, site) {
  const { trace } = view;
  const nats = (v) => (v === null || Number.isNaN(v) ? "–" : v.toFixed(2) + " nats");
  const lines = [
    `token ${token}, id ${trace.id[token]}, context ${trace.context[token]} tokens`,
    `layers used ${trace.used[token]} of ${trace.layers}`,
    `surprisal ${nats(trace.surprisal[token])}, loss on next token ${nats(trace.nll[token])}`,
  ];
  const bySite = view.colour.value === "decision" || view.colour.value === "score";
  const chosen = trace.sites[site ?? (bySite ? Number(view.site.value) : -1)];
  if (chosen) {
    const limit = typeof chosen.threshold === "number" ? chosen.threshold : chosen.threshold[token];
    lines.push(`${chosen.label}: score ${Number.isNaN(chosen.score[token]) ? "none" : digits(chosen.score[token])}, threshold ${digits(limit)}, ${chosen.executed[token] ? "ran" : "skipped"}`);
  }
  return lines;
}

function select(view, token) {
  if (token === null || token === view.selected) return;
  view.selected = token;
  view.kept.set(view.key, token);
  mark(view);
  reveal(view);
  view.said.textContent = [JSON.stringify(view.spans[token].textContent), ...about(view, token)].join(", ");
  view.send(token);
}

function mark(view) {
  const before = view.tokens.querySelector(".selected");
  before?.classList.remove("selected");
  before?.removeAttribute("aria-selected");
  view.tokens.removeAttribute("aria-activedescendant");
  if (view.selected === null) return;
  const span = view.spans[view.selected];
  span.classList.add("selected");
  span.setAttribute("aria-selected", "true");
  view.tokens.setAttribute("aria-activedescendant", span.id);
}

/** Bring the selected token into both views, moving nothing outside them. */
function reveal(view) {
  scrollTo(view, view.spans[view.selected]);
  const size = shown(view);
  if (view.selected < view.start || view.selected >= view.start + size) view.start = view.selected - Math.floor(size / 2);
  paint(view);
}

function step(view, event) {
  const { key } = event;
  const { count } = view.trace;
  const move = { ArrowLeft: -1, ArrowRight: 1 }[key];
  let target = null;
  if (move) target = sideways(view, move);
  else if (key === "Home") target = 0;
  else if (key === "End") target = Number(view.spans[count - 1].dataset.token);
  else if (key === "ArrowUp" || key === "ArrowDown") target = otherLine(view, key === "ArrowDown" ? 1 : -1);
  else return;
  event.preventDefault();
  if (target !== null) select(view, target);
}

function sideways(view, move) {
  return view.selected === null ? 0 : nextSpan(view, view.selected, move);
}

/** The token of the next or previous line that lies nearest below or above the selected one. */
function otherLine(view, direction) {
  if (view.selected === null) return 0;
  const from = view.spans[view.selected].getBoundingClientRect();
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

// ---- the map -------------------------------------------------------------------------------

const LEFT = 46, TOP = 4, GAP = 30, BOTTOM = 22;

function panels(view) {
  const units = [...new Set(view.trace.sites.map((site) => site.unit))];
  return units.length ? units : [];
}

function rowHeight(view) { return view.trace.rows > 40 ? 4 : 6; }

function shown(view) {
  const width = Math.max(60, view.canvas.clientWidth - LEFT - 4);
  return Math.min(view.trace.count, Math.floor(width / CELL));
}

function scroll(view, start) { view.start = start; paint(view); }

function paint(view) {
  const { trace, canvas } = view;
  const units = panels(view);
  canvas.style.display = units.length ? "block" : "none";
  const size = shown(view);
  view.start = Math.max(0, Math.min(view.start, trace.count - size));
  const windowed = trace.count > size;
  view.nav.classList.toggle("hidden", !windowed || !units.length);
  view.scrub.max = String(trace.count - size);
  view.scrub.value = String(view.start);
  mapHead(view, units, size);
  if (!units.length) return;
  const row = rowHeight(view);
  const height = TOP + units.length * (row * trace.rows + GAP) - GAP + BOTTOM;
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const cell = Math.min(14, (width - LEFT - 4) / size);
  view.geometry = { cell, row, units, size };
  units.forEach((unit, place) => paintPanel(view, context, unit, TOP + place * (row * trace.rows + GAP)));
  const { ink } = pageColours(view);
  context.fillStyle = css(ink);
  context.font = "11px sans-serif";
  context.textAlign = "left";
  context.fillText(`token ${view.start}`, LEFT, height - 6);
  context.textAlign = "right";
  if (size > 20) context.fillText(`token ${view.start + size - 1}`, LEFT + cell * size, height - 6);
  canvas.setAttribute("aria-label", `Layers by tokens, ${units.map((u) => trace.palette.names[u]).join(" and ")}: which ran for tokens ${view.start} to ${view.start + size - 1}`);
}

function paintPanel(view, context, unit, top) {
  const { trace, geometry: { cell, row, size } } = view;
  const { page, ink } = pageColours(view);
  const byScore = view.colour.value === "score";
  const on = rgb(trace.palette.units[unit]);
  const off = blend(page, ...trace.palette.skipped), always = blend(page, ...trace.palette.alwaysRuns);
  const bottom = top + row * trace.rows;
  context.fillStyle = css(always);
  context.fillRect(LEFT, top, cell * size, row * trace.rows);
  for (const site of trace.sites) {
    if (site.unit !== unit) continue;
    const y = bottom - row * (site.row + 1);
    for (let k = 0; k < size; k++) {
      const i = view.start + k;
      const margin = marginOf(site, i);
      const scored = Number.isNaN(margin) ? off : along(trace.palette.margins, (margin + trace.margin) / (2 * trace.margin));
      const colour = byScore ? scored : site.executed[i] ? on : off;
      context.fillStyle = css(colour);
      context.fillRect(LEFT + k * cell, y, cell + 0.5, row - 0.5);
    }
  }
  context.fillStyle = css(ink);
  context.font = "11px sans-serif";
  context.textAlign = "right";
  for (let layer = 0; layer < trace.rows; layer += 10)
    context.fillText(String(layer), LEFT - 5, bottom - row * layer - row / 2 + 4);
  context.save();
  context.translate(11, (top + bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(`${trace.palette.names[unit]} ${trace.rows > trace.layers ? "layer run" : "layer"}`, 0, 0);
  context.restore();
  outline(view, context, view.hovered, top, css(ink), 1);
  outline(view, context, view.selected, top, getComputedStyle(view.root).getPropertyValue("--st-primary-color") || css(ink), 2);
}

function outline(view, context, token, top, colour, width) {
  const { trace, geometry: { cell, row, size } } = view;
  if (token === null || token < view.start || token >= view.start + size) return;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(LEFT + (token - view.start) * cell - 0.5, top - 1, cell + 1, row * trace.rows + 2);
}

function mapHead(view, units, size) {
  const { trace } = view;
  const { page } = pageColours(view);
  const item = (colour, words) => {
    const whole = document.createElement("span");
    if (colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      whole.append(swatch, " ");
    }
    whole.append(words);
    return whole;
  };
  if (!units.length) {
    view.head.replaceChildren(item(null, "This model has no gates: every layer runs for every token, so there is no map."));
    return;
  }
  const range = trace.count > size
    ? `Map: tokens ${view.start.toLocaleString("en")} to ${(view.start + size - 1).toLocaleString("en")} of ${trace.count.toLocaleString("en")}`
    : `Map: all ${trace.count.toLocaleString("en")} tokens`;
  const legend = view.colour.value === "score"
    ? [item(css(along(trace.palette.margins, 0)), `skipped by a margin of ${trace.margin} or more`), item(css(along(trace.palette.margins, 1)), `ran by a margin of ${trace.margin} or more`)]
    : [...units.map((unit) => item(trace.palette.units[unit], `${trace.palette.names[unit]} ran`)), item(css(blend(page, ...trace.palette.skipped)), "skipped")];
  view.head.replaceChildren(item(null, range), ...legend, item(css(blend(page, ...trace.palette.alwaysRuns)), "always runs (no gate)"));
}

function cellAt(view, event) {
  const none = { token: null, site: undefined };
  if (!view.geometry) return none;
  const { trace, geometry: { cell, row, units, size } } = view;
  const column = Math.floor((event.offsetX - LEFT) / cell);
  if (column < 0 || column >= size) return none;
  const token = view.start + column;
  const panel = row * trace.rows + GAP;
  const place = Math.floor((event.offsetY - TOP) / panel);
  const inside = event.offsetY - TOP - place * panel;
  if (place < 0 || place >= units.length || inside >= row * trace.rows) return none;
  const layer = trace.rows - 1 - Math.floor(inside / row);
  const site = trace.sites.findIndex((s) => s.unit === units[place] && s.row === layer);
  return { token, site: site < 0 ? undefined : site };
}

function clickMap(view, event) {
  const { token, site } = cellAt(view, event);
  if (token === null) return;
  const bySite = view.colour.value === "decision" || view.colour.value === "score";
  if (bySite && site !== undefined) { view.site.value = String(site); recolour(view); }
  select(view, Number(view.spans[token].dataset.token));
}
