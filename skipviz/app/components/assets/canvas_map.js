// The map of layers and tokens: cells on one canvas, and over it, on another, what is marked.

const CELL = 3; // pixels per token, at least
const LEFT = 46, TOP = 4, GAP = 12, BOTTOM = 30;
const NAME = 52; // of a panel of few layers: as high as each word of its name is long
const HOLLOW = { cell: 7, row: 6 }; // from this size on, what was skipped is drawn hollow
const ASKED = 1; // a mark of a decision that was asked for; others follow from those
const CONE = 0.16; // how much ink what can depend on a flip is shaded with
const DIAMOND = 4.5; // half the width of what marks one decision
const STEPS = 255; // shades of a ramp on the map

function unitsOf(view) { return [...new Set(view.trace.sites.map((site) => site.unit))]; }

function rowHeight(view) {
  const usual = (view.trace.rows > 40 ? 4 : 6) - (view.compact ? 2 : 0);
  return Math.max(usual, NAME / view.trace.rows);
}

/** How many tokens the map shows at once. */
function shown(view) {
  const width = Math.max(60, view.canvas.clientWidth - LEFT - 4);
  return Math.min(view.trace.count, Math.floor(width / CELL));
}

function scroll(view, start) { view.start = start; paintMap(view); }

/** Bring the selected token into the map; the cells are painted anew only if it has to move. */
function revealOnMap(view) {
  const size = shown(view);
  if (view.token === null || (view.token >= view.start && view.token < view.start + size)) return paintMarks(view);
  view.start = view.token - Math.floor(size / 2);
  paintMap(view);
}

/** The lens whose numbers the cells show: that of the text if it has some, else decisions. */
function mapLens(view) {
  const lens = lensNow(view);
  return lens.ofCells ? lens : view.lenses.find((each) => each.stored === "ran");
}

function paintMap(view) {
  const { trace, canvas } = view, units = unitsOf(view);
  view.mapSide.classList.toggle("empty", !units.length);
  const size = shown(view);
  view.start = Math.max(0, Math.min(view.start, trace.count - size));
  view.nav.classList.toggle("hidden", trace.count <= size || !units.length);
  view.scrub.max = String(trace.count - size);
  view.scrub.value = String(view.start);
  mapHead(view, units, size);
  if (!units.length) return;
  const row = rowHeight(view), panel = row * trace.rows;
  const height = TOP + units.length * (panel + GAP) - GAP + BOTTOM, width = canvas.clientWidth;
  view.geometry = { cell: Math.min(14, (width - LEFT - 4) / size), row, units, size, panel, width, height };
  const context = fitted(canvas, width, height);
  const paint = cellPainter(view);
  units.forEach((unit, place) => paintPanel(view, context, unit, TOP + place * (panel + GAP), paint));
  const { cell } = view.geometry;
  context.fillStyle = css(pageColours(view).ink);
  context.font = "11px sans-serif";
  context.textAlign = "left";
  context.fillText(`token ${view.start}`, LEFT, height - 6);
  context.textAlign = "right";
  if (cell * size > 160) context.fillText(`token ${view.start + size - 1}`, LEFT + cell * size, height - 6);
  canvas.setAttribute("aria-label", `${mapLens(view).name}, layers by tokens, ${units.map((unit) => trace.palette.names[unit]).join(" and ")}, tokens ${view.start} to ${view.start + size - 1}. The panel says the same of the selected token.`);
  paintMarks(view);
}

/** Give a canvas its size in the page's pixels, and return what to draw with. */
function fitted(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

/** Return a function from a cell's value to the colour it is filled with; null where unknown. */
function cellPainter(view) {
  const { trace } = view, lens = mapLens(view), { page, ink } = pageColours(view);
  if (lens.stored === "ran") {
    const off = css(blend(page, ...trace.palette.skipped));
    const on = Object.fromEntries(unitsOf(view).map((unit) => [unit, trace.palette.units[unit]]));
    return { fill: (value, site) => (value ? on[site.unit] : off), hollow: css(blend(page, ink, 0.45)) };
  }
  if (lens.siteScales && view.stretch.checked) {
    const fills = trace.sites.map((site) => shadesOf(view, lens, site.place));
    return { fill: (value, site) => fills[site.place](value) };
  }
  const paint = painter(view, lens);
  if (lens.scale === "categories") return { fill: (value) => (Number.isNaN(value) ? null : css(paint(value))) };
  return { fill: shadesOf(view, lens) };
}

/** The shades of a ramp, made once: a map has more cells than there are colours to tell apart. */
function shadesOf(view, lens, place) {
  const paint = painter(view, lens, place), [low, high] = endsOf(view, lens, place), step = (high - low) / STEPS;
  const shades = Array.from({ length: STEPS + 1 }, (_, i) => css(paint(low + step * i)));
  return (value) => (Number.isNaN(value) ? null : shades[Math.max(0, Math.min(STEPS, Math.round((value - low) / step)))]);
}

function paintPanel(view, context, unit, top, paint) {
  const { trace, geometry: { cell, row, size, panel } } = view;
  const { page, ink } = pageColours(view), lens = mapLens(view);
  const bottom = top + panel, unknown = hatching(context, page, ink);
  const big = cell >= HOLLOW.cell && row >= HOLLOW.row;
  const answer = answerNow(view), marks = answer?.cone.length ? null : answer?.marks;
  context.fillStyle = css(blend(page, ...trace.palette.alwaysRuns));
  context.fillRect(LEFT, top, cell * size, panel);
  for (const site of trace.sites) {
    if (site.unit !== unit) continue;
    const y = bottom - row * (site.row + 1), start = site.place * trace.count;
    for (let k = 0; k < size; k++) {
      const at = start + view.start + k, x = LEFT + k * cell, ran = trace.ran[at];
      const colour = paint.fill(lens.values[at], site);
      context.fillStyle = colour ?? unknown;
      context.fillRect(x, y, cell + 0.5, row - 0.5);
      if (big && !ran && colour !== null) {
        // What was skipped is a frame.
        if (paint.hollow) { context.fillStyle = paint.hollow; context.fillRect(x + 0.5, y, cell - 0.5, row - 0.5); }
        context.fillStyle = css(page);
        context.fillRect(x + 1.5, y + 1, cell - 2.5, row - 2.5);
      }
      if (marks?.[at]) markCell(context, marks[at] === ASKED, x, y, cell, row, css(ink), trace.palette.downstream);
    }
  }
  context.fillStyle = css(ink);
  context.font = "11px sans-serif";
  context.textAlign = "right";
  const every = row > 6 ? [1, 2, 5].find((layers) => layers * row >= 13) : 10;
  for (let layer = 0; layer < trace.rows; layer += every)
    context.fillText(String(layer), LEFT - 5, bottom - row * layer - row / 2 + 4);
  paintName(context, [trace.palette.names[unit], trace.rows > trace.layers ? "layer run" : "layer"], top, bottom);
}

/** Write a panel's name up its side, in two lines where it is not as high as the name is long. */
function paintName(context, words, top, bottom) {
  const name = words.join(" "), lines = context.measureText(name).width > bottom - top ? words : [name];
  context.save();
  context.translate(11, (top + bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  lines.forEach((line, place) => context.fillText(line, 0, 12 * place));
  context.restore();
}

/** Mark a decision that changed: in its upper half if that was asked, else in its lower half. */
function markCell(context, asked, x, y, cell, row, ink, downstream) {
  context.fillStyle = asked ? ink : downstream;
  context.fillRect(x, asked ? y : y + row / 2, cell + 0.5, row / 2);
}

/** Where the cell of a token and a site begins. */
function placeOf({ start, geometry: { cell, row, units, panel } }, token, site) {
  return [LEFT + (token - start) * cell, TOP + units.indexOf(site.unit) * (panel + GAP) + panel - row * (site.row + 1)];
}

/** Shade what can depend on the decision that was flipped. */
function paintCone(view, context) {
  const answer = answerNow(view);
  if (!answer?.cone.length) return;
  const { trace, geometry: { cell, row, size } } = view, [token] = answer.cell;
  context.fillStyle = `rgba(${pageColours(view).ink.join(",")},${CONE})`;
  for (const site of trace.sites) {
    const reach = answer.cone[site.place];
    if (!reach) continue;
    // Of all tokens, of the token and later ones, of the token alone.
    const first = Math.max(view.start, reach === 3 ? 0 : token);
    const last = Math.min(view.start + size, reach === 1 ? token + 1 : trace.count);
    if (first < last) context.fillRect(...placeOf(view, first, site), (last - first) * cell, row);
  }
}

/** Mark the decisions that change with the one that was flipped. */
function paintChanges(view, context) {
  const answer = answerNow(view);
  if (!answer?.cone.length) return;
  const { trace, geometry: { cell, row, size } } = view;
  context.fillStyle = trace.palette.downstream;
  context.strokeStyle = css(pageColours(view).page);
  context.lineWidth = 1.5;
  for (const site of trace.sites)
    for (let at = view.start; at < view.start + size; at++) {
      const mark = answer.marks[site.place * trace.count + at];
      if (!mark || mark === ASKED) continue;
      const [x, y] = placeOf(view, at, site);
      diamond(context, x + cell / 2, y + row / 2);
    }
}

function diamond(context, x, y) {
  context.beginPath();
  for (const [dx, dy] of [[0, -DIAMOND], [DIAMOND, 0], [0, DIAMOND], [-DIAMOND, 0]]) context.lineTo(x + dx, y + dy);
  context.closePath();
  context.stroke();
  context.fill();
}

/** The pattern of what is unknown: not a colour that could be taken for a number. */
function hatching(context, page, ink) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 4;
  const drawn = tile.getContext("2d");
  drawn.fillStyle = css(page);
  drawn.fillRect(0, 0, 4, 4);
  drawn.fillStyle = css(blend(page, ink, 0.4));
  for (let i = 0; i < 4; i++) drawn.fillRect(i, 3 - i, 1, 1);
  return context.createPattern(tile, "repeat");
}

/** Outline what is hovered, selected, pinned and chosen. */
function paintMarks(view) {
  if (!view.geometry || !unitsOf(view).length) return;
  const { width, height, cell, row, units, size, panel } = view.geometry;
  const { ink, theme } = pageColours(view), { trace } = view;
  const context = fitted(view.over, width, height);
  const primary = getComputedStyle(view.root).getPropertyValue("--st-primary-color") || css(ink);
  const { page } = pageColours(view);
  paintCone(view, context);
  const column = (token, colour, thick, label) => {
    if (token === null || token < view.start || token >= view.start + size) return;
    const x = LEFT + (token - view.start) * cell;
    const frame = (by) => units.forEach((_, place) => context.strokeRect(x - by, TOP + place * (panel + GAP) - 1, cell + 2 * by, panel + 2));
    if (thick > 1) { context.strokeStyle = css(page); context.lineWidth = 2; frame(2); }
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = thick;
    frame(0.5);
    if (!label) return;
    context.font = "bold 11px sans-serif";
    context.textAlign = "center";
    context.fillText(label, x + cell / 2, height - BOTTOM + 10);
  };
  if (view.range) {
    const [from, to] = view.range.map((token) => LEFT + (Math.min(view.start + size, Math.max(view.start, token)) - view.start) * cell);
    context.fillStyle = primary;
    context.fillRect(from, height - BOTTOM + 1, Math.max(cell, to - from + cell), 3);
  }
  column(view.hovered, css(ink), 1);
  view.pins.forEach((token, i) => column(token, trace.palette.pins[theme][i], 2, String(i + 1)));
  column(view.token, css(ink), 2);
  paintChanges(view, context);
  if (view.token === null || view.site === null || view.token < view.start || view.token >= view.start + size) return;
  const [x, y] = placeOf(view, view.token, trace.sites[view.site]);
  context.strokeStyle = css(ink);
  context.lineWidth = 2;
  context.strokeRect(x - 1, y - 1, cell + 2, row + 1.5);
}

function mapHead(view, units, size) {
  const { trace } = view, { page, ink } = pageColours(view);
  if (!units.length) {
    view.head.replaceChildren(keyOf(null, "This model has no gates: every layer runs for every token, so there is no map."));
    return;
  }
  const lens = mapLens(view), answer = answerNow(view), number = (value) => value.toLocaleString("en");
  const range = trace.count > size
    ? `tokens ${number(view.start)} to ${number(view.start + size - 1)} of ${number(trace.count)}`
    : `all ${number(trace.count)} tokens`;
  const title = document.createElement("b");
  title.textContent = `Map: ${lens.name}${answer?.marks && lens.stored === "ran" ? " as traced" : ""}, ${range}`;
  const keys = lens.stored === "ran"
    ? [...units.map((unit) => keyOf(trace.palette.units[unit], `${trace.palette.names[unit]} ran`)), keyOf(css(blend(page, ...trace.palette.skipped)), "skipped", "hollow")]
    : [...(lens.siteScales && view.stretch.checked ? siteScaleKeys(view, lens) : keysOf(view, lens, lens.values)), keyOf("transparent", "frame only: skipped", "hollow")];
  if (answer?.cone.length) {
    keys.push(keyOf(`rgba(${ink.join(",")},${CONE})`, "shaded: can depend on the flip"));
    keys.push(keyOf(trace.palette.downstream, "diamond: changes with it", "diamond"));
  } else if (answer) keys.push(keyOf(css(ink), "upper half: changed as asked"), keyOf(trace.palette.downstream, "lower half: changed downstream"));
  if (units.length * trace.rows > trace.sites.length) keys.push(keyOf(css(blend(page, ...trace.palette.alwaysRuns)), "always runs (no gate)"));
  view.head.replaceChildren(title, ...keys);
}

/** The keys of a lens whose sites have a scale each: the ends have no one number. */
function siteScaleKeys(view, lens) {
  const ramp = view.trace.palette.ramps[lens.colours][pageColours(view).theme], bar = document.createElement("span");
  const item = keyOf(null, "far below 0");
  bar.className = "ramp";
  bar.style.background = `linear-gradient(to right, ${ramp.join(",")})`;
  item.append(bar, `far above 0, each site on its own scale (${lens.note})`);
  return [item];
}

/** Which token and site a pointer is over. */
function cellAt(view, event) {
  const none = { token: null, site: null };
  if (!view.geometry) return none;
  const { trace, geometry: { cell, row, units, size, panel } } = view;
  const column = Math.floor((event.offsetX - LEFT) / cell);
  if (column < 0 || column >= size) return none;
  const place = Math.floor((event.offsetY - TOP) / (panel + GAP));
  const inside = event.offsetY - TOP - place * (panel + GAP);
  if (place < 0 || place >= units.length || inside >= panel) return none;
  const layer = trace.rows - 1 - Math.floor(inside / row);
  const site = trace.sites.findIndex((each) => each.unit === units[place] && each.row === layer);
  return { token: view.start + column, site: site < 0 ? null : site };
}
