// Reads what Python packed: a trace, and the lenses that came with it.

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array, float64: Float64Array };

/** Return a function that gives a packed array by its name, or null if there is none. */
function unpack(table, parts) {
  const bytes = table.numRows ? table.getChild("b").toArray() : new Uint8Array();
  return (name) => {
    const part = parts[name];
    if (!part) return null;
    const [kind, start, count] = part;
    const Kind = kind === "float16" ? Uint16Array : ARRAYS[kind];
    const found = new Kind(bytes.slice(start, start + count * Kind.BYTES_PER_ELEMENT).buffer);
    return kind === "float16" ? widened(found) : found;
  };
}

let HALVES = null;

/** Numbers of 16 bits as numbers of 32: not every browser has an array of the former. */
function widened(halves) {
  if (!HALVES) {
    HALVES = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const exponent = (bits >> 10) & 31, fraction = bits & 1023;
      const size = exponent === 31 ? (fraction ? NaN : Infinity)
        : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
      HALVES[bits] = bits & 32768 ? -size : size;
    }
  }
  return Float32Array.from(halves, (bits) => HALVES[bits]);
}

/** One number for each bit. */
function unpackBits(bytes, count) {
  const found = new Uint8Array(count);
  for (let i = 0; i < count; i++) found[i] = (bytes[i >> 3] >> (i & 7)) & 1;
  return found;
}

/** Return a trace. What belongs to cells lies site after site. */
function readTrace(data) {
  const part = unpack(data.bytes, data.parts), { count } = data;
  const cells = count * data.sites.length;
  const scores = part("scores"), forced = part("forced");
  const trace = {
    count, layers: data.layers, rows: data.rows, palette: data.palette, texts: data.texts,
    span: numbered(unpackBits(part("opens"), count)), id: part("token_id"),
    used: part("used"), nll: part("nll"), surprisal: part("surprisal"), entropy: part("entropy"),
    ran: unpackBits(part("ran"), cells), counts: part("counts"),
    forced: forced && unpackBits(forced, cells),
    scores, margin: new Float32Array(cells), likely: data.likely,
    likelyOf: part("likelyOf"), likelyWords: part("likelyWords"), likelyIds: part("likelyIds"), likelyShares: part("likelyShares"),
    nextToken: data.nextToken, classes: data.classes,
    ...sequences(data.sources, count),
  };
  trace.context = part("context") ?? contexts(data.sources, count);
  trace.sites = data.sites.map((site, place) => ({ ...site, place, starts: part("limitStarts" + place), limits: part("limits" + place) }));
  for (const site of trace.sites)
    for (let i = 0, at = site.place * count; i < count; i++, at++)
      trace.margin[at] = Number.isFinite(limitOf(site, i)) ? scores[at] * site.spread : NaN;
  return trace;
}

/** The number of each token's span, from where spans begin. */
function numbered(opens) {
  let span = -1;
  return Int32Array.from(opens, (opened) => (span += opened));
}

/** How many tokens each token could see, itself included, where windows do not end that. */
function contexts(sources, count) {
  const found = new Int32Array(count);
  sources.forEach(([start], place) => {
    const end = place + 1 < sources.length ? sources[place + 1][0] : count;
    for (let i = start; i < end; i++) found[i] = i - start + 1;
  });
  return found;
}

/** Which text each token is of, from where the texts begin. */
function sequences(sources, count) {
  const sequence = new Int32Array(count);
  sources.forEach(([start], place) => sequence.fill(place, start));
  return { sequence, sources: sources.map(([, name]) => name) };
}

/** A site's threshold for a token; NaN where there is none. */
function limitOf(site, token) {
  if (!site.starts) return site.threshold ?? NaN;
  let low = 0, high = site.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (site.starts[middle] <= token) low = middle; else high = middle - 1;
  }
  return site.limits[low];
}

/** What is known of one decision. */
function decisionOf(trace, token, place) {
  const site = trace.sites[place], at = place * trace.count + token;
  const limit = limitOf(site, token), margin = trace.margin[at];
  const times = trace.counts ? trace.counts[at] : trace.ran[at];
  const score = Number.isFinite(limit) ? limit + site.polarity * margin : trace.scores[at] * site.spread;
  return {
    site, limit, margin, score, ran: times > 0,
    word: (times === 0 ? "skipped" : times === 1 ? "ran" : `ran ${times} times`) + (trace.forced?.[at] ? ", forced" : ""),
  };
}

/** The class that was predicted of a token's text, and its probability; null where unknown. */
function classOf(trace, token) {
  const found = trace.classes.findLast(([start]) => start <= token);
  return found && found[1] !== null ? { label: found[1], share: found[2] } : null;
}

/** The most likely tokens after one token, the most likely first; null where unknown. */
function likelyAfter(trace, token) {
  if (!trace.likelyWords) return null;
  const place = trace.likelyOf ? trace.likelyOf.indexOf(token) : token;
  if (place < 0) return null;
  const each = trace.likelyWords.length / (trace.likelyOf?.length ?? trace.count);
  const following = token + 1 < trace.count && trace.sequence[token + 1] === trace.sequence[token] ? trace.id[token + 1] : null;
  return Array.from({ length: each }, (_, i) => trace.likelyWords[place * each + i])
    .map((word, i) => ({ id: trace.likelyIds[word], text: trace.likely[word], share: trace.likelyShares[place * each + i], came: trace.likelyIds[word] === following }))
    .filter((likely) => likely.id >= 0);
}

/** Return the lenses of the trace, each with the array of its numbers. */
function readLenses(data, trace) {
  return data.lenses.map((lens) => ({ ...lens, values: trace[lens.stored] }));
}

/** What two tokens of one text share: characters. The text of a token's characters. */
function textOf(trace, token) {
  let first = token;
  while (first > 0 && trace.span[first - 1] === trace.span[token]) first -= 1;
  return trace.texts[first];
}

// ---- numbers in words ------------------------------------------------------------------------

/** Three digits: so many have the numbers that came in 16 bits. */
function shortNumber(value) {
  if (value === null || Number.isNaN(value)) return "unknown";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** A number of a user's own, which came in 64 bits: all its digits. */
function ownNumber(value) {
  const digits = String(value);
  return digits.includes("e") ? digits : digits.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
}

/** A stretched end of a scale of a user's own: seven digits, or as many as tell the ends apart. */
function ownEnd(value, [low, high]) {
  const shared = Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high)) / (high - low)));
  return ownNumber(Number(value.toPrecision(Math.min(17, Math.max(7, shared + 3)))));
}

/** How many tokens; below 0 it is unknown. */
function countWords(tokens) { return tokens < 0 ? "unknown" : `${tokens.toLocaleString("en")} tokens`; }

function signed(value) { return (value > 0 ? "+" : "") + shortNumber(value); }

function inNats(value) { return value === null || Number.isNaN(value) ? "unknown" : value.toFixed(2) + " nats"; }

/** Decimals that show three digits. */
function placesOf(value) { return value ? Math.min(8, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(value))))) : 2; }

/** Score and threshold, to the last digit that their difference is known to. */
function scoreWords({ score, limit, margin }) {
  if (Number.isNaN(score)) return { score: "none", limit: Number.isFinite(limit) ? shortNumber(limit) : "none" };
  if (!Number.isFinite(limit)) return { score: shortNumber(score), limit: "none" };
  const places = placesOf(margin);
  return { score: score.toFixed(places), limit: limit.toFixed(Math.max(places, placesOf(limit))) };
}
