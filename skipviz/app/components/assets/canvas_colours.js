// Colours of values: the ramp of a lens, and the legend that says what its ends are.

function rgb(hex) { return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)); }

function blend(from, to, share) { return from.map((v, i) => Math.round(v + (to[i] - v) * share)); }

function along(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const low = Math.min(colours.length - 2, Math.floor(place));
  return blend(rgb(colours[low]), rgb(colours[low + 1]), place - low);
}

function css(colour) { return `rgb(${colour.join(",")})`; }

function lightness(colour) {
  const [r, g, b] = colour.map((v) => (v / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function inkOn(colour) { return (lightness(colour) + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff"; }

/** The colours that the page has now, and which theme they belong to. */
function pageColours(view) {
  const style = getComputedStyle(view.root);
  const parse = (value) => (value.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
  const page = parse(style.backgroundColor);
  return { page, ink: parse(style.color), theme: lightness(page) > 0.2 ? "light" : "dark" };
}

function lensNow(view) { return view.lenses.find((lens) => lens.slug === view.lens) ?? view.lenses[0]; }

/** The site that a lens of cells paints the text by. */
function siteNow(view) { return view.site ?? view.lastSite; }

/** The number of a lens for a token, at a site if there is one a cell; NaN where unknown. */
function valueOf(view, lens, token, place) {
  return lens.values[lens.ofCells ? place * view.trace.count + token : token];
}

/** The ends of a lens's scale: of one site where the text is painted by it, of all on the map. */
function endsOf(view, lens, place) {
  if (!view.stretch.checked) return lens.ends;
  return lens.ofCells && place !== undefined ? lens.stretchedSites[place] : lens.stretched;
}

/** Return a function from a value to its colour; null: nothing is painted; undefined: unknown. */
function painter(view, lens, place) {
  const { palette, sites } = view.trace, { theme } = pageColours(view);
  if (lens.stored === "ran") {
    const on = rgb(palette.units[sites[place]?.unit] ?? palette.categories[0]);
    return (value) => (value ? on : null);
  }
  if (lens.scale === "categories") {
    const colours = lens.categories.map((_, i) => rgb(categoryColour(palette, lens, i)));
    return (value) => (Number.isNaN(value) ? undefined : colours[value]);
  }
  const ramp = palette.ramps[lens.colours][theme], [low, high] = endsOf(view, lens, place);
  return (value) => (Number.isNaN(value) ? undefined : along(ramp, (value - low) / (high - low)));
}

/** What is left over when categories run out is grey, everywhere. */
function categoryColour(palette, lens, i) {
  return palette.categories[lens.categories[i] === "other" ? palette.categories.length - 1 : i];
}

/** A value of a lens in words. */
function valueWords(lens, value) {
  if (Number.isNaN(value)) return "unknown";
  if (lens.scale === "categories") return lens.categories[value];
  const number = lens.scale === "diverging" ? signed(value) : numberWords(lens, value);
  return `${number} ${lens.unit}`.trim();
}

function numberWords(lens, value) { return lens.colours === "own" ? ownNumber(value) : shortNumber(value); }

/** An end of a scale in words: a value of the lens has all its digits, a stretched end has fewer. */
function endWords(lens, end, ends) {
  return lens.colours !== "own" || lens.ends.includes(end) ? numberWords(lens, end) : ownEnd(end, ends);
}

// ---- the legend --------------------------------------------------------------------------------

function swatch(colour, kind = "") {
  const element = document.createElement("span");
  element.className = "swatch " + kind;
  if (colour) element.style.background = colour;
  return element;
}

/** A swatch and its words, kept on one line. */
function keyOf(colour, words, kind = "") {
  const item = document.createElement("span");
  item.className = "key";
  if (colour !== null) item.append(swatch(colour, kind));
  item.append(words);
  return item;
}

/** The keys of a lens, for the values that are shown. */
function keysOf(view, lens, values, place) {
  const paint = painter(view, lens, place);
  const counts = new Map();
  let lowest = Infinity, highest = -Infinity, unknown = 0;
  for (const value of values) {
    if (Number.isNaN(value)) { unknown += 1; continue; }
    if (lens.scale === "categories") counts.set(value, (counts.get(value) ?? 0) + 1);
    lowest = Math.min(lowest, value);
    highest = Math.max(highest, value);
  }
  const keys = [];
  if (lens.stored === "ran") {
    const adapter = view.trace.sites[place]?.skip_path === "adapter";
    keys.push(keyOf(css(paint(1)), `ran: ${(counts.get(1) ?? 0).toLocaleString("en")}`));
    keys.push(keyOf("transparent", `skipped${adapter ? " (an adapter ran instead)" : ""}: ${(counts.get(0) ?? 0).toLocaleString("en")}`));
  } else if (lens.scale === "categories") {
    lens.categories.forEach((name, i) => counts.has(i) && keys.push(keyOf(css(paint(i)), `${name}: ${counts.get(i).toLocaleString("en")}`)));
  } else if (lowest <= highest) {
    keys.push(rampKey(view, lens, paint, endsOf(view, lens, place), lowest, highest));
  }
  if (unknown) keys.push(keyOf("", `unknown: ${unknown.toLocaleString("en")}`, "unknown"));
  return keys;
}

function rampKey(view, lens, paint, [low, high], lowest, highest) {
  const item = document.createElement("span"), bar = document.createElement("span");
  item.className = "key";
  bar.className = "ramp";
  const stops = Array.from({ length: 13 }, (_, i) => css(paint(low + ((high - low) * i) / 12)));
  bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const below = lowest < low ? " or less" : "", above = highest > high ? " or more" : "";
  const [from, to] = [low, high].map((end) => endWords(lens, end, [low, high]));
  item.append(from + below, bar, [to + above, lens.unit, lens.note && `(${lens.note})`].filter(Boolean).join(" "));
  return item;
}
