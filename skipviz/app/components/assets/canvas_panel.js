// The panel of the selected token, from what the browser has: nothing is asked of Python.

const AUDIT_LENS = "utility";
const SVG = "http://www.w3.org/2000/svg";
const PATH = { width: 300, left: 20, right: 4, unit: 62, gap: 18, bottom: 18, mark: 3 };

/** An element with its text and attributes. */
function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A token's text as one sees it, in quotation marks. */
function quoted(view, token) {
  return `“${textOf(view.trace, token).replaceAll("\n", "↵").replaceAll("\t", "⇥")}”`;
}

/** The tokens that the panel compares: the selected one, then those pinned beside it. */
function compared(view) {
  const { theme } = pageColours(view), colours = view.trace.palette.pins[theme];
  const pins = view.pins.map((token, i) => ({ token, name: String(i + 1), colour: colours[i] }));
  const own = view.token === null || view.pins.includes(view.token) ? [] : [{ token: view.token, name: "", colour: null }];
  return [...own, ...pins];
}

function drawPanel(view) {
  const tokens = compared(view);
  const open = view.panel.querySelector("details")?.open ?? false;
  if (!tokens.length) {
    view.panel.replaceChildren(
      make("h3", "No token selected"),
      make("p", "Click a token in the text or a cell of the map, or use the arrow keys in the text, to see its path through the layers. Shift+click pins up to four tokens to compare them. Press ? for all keys."),
      ...(view.trace.classes.length <= 1 ? predictedClass(view, 0) : []));
    return;
  }
  const focus = view.token ?? tokens[0].token;
  view.panel.replaceChildren(
    heading(view, focus),
    ...(view.site === null || view.token === null ? [] : [cellWords(view), ...flipWords(view)]),
    numbers(view, tokens),
    ...predictedClass(view, focus),
    ...(view.trace.sites.length ? [path(view, tokens)] : [make("p", "This model has no gates: every layer ran.")]),
    ...(view.trace.nextToken ? [nextTokens(view, focus)] : []),
    ...(view.trace.sites.length ? [sitesTable(view, tokens, open)] : []));
}

function heading(view, token) {
  const title = make("h3", undefined);
  title.append(`Token ${token.toLocaleString("en")} `, make("q", quoted(view, token).slice(1, -1)));
  return title;
}

/** The selected cell in words: what was decided, by which score. */
function cellWords(view) {
  const { trace, token, site } = view, decision = decisionOf(trace, token, site), words = scoreWords(decision);
  const lens = lensNow(view), mark = answerNow(view)?.marks?.[site * trace.count + token];
  const parts = [`${decision.site.label}: ${decision.word}${mark ? " as traced" : ""}. Score ${words.score}, threshold ${words.limit}, margin ${Number.isNaN(decision.margin) ? "unknown" : signed(decision.margin)}.`];
  if (lens.ofCells && lens.stored !== "ran" && lens.stored !== "margin") parts.push(`${lens.name}: ${valueWords(lens, valueOf(view, lens, token, site))}.`);
  if (mark) parts.push(`What if: ${decision.ran ? "skipped" : "ran"}, ${mark === ASKED ? "as asked" : "downstream"}.`);
  return make("p", parts.join(" "), { class: "cell-words" });
}

/** What a flip of the selected decision would do, as far as it is known, and a way to ask. */
function flipWords(view) {
  const { token, site } = view, answer = answerOf(view, token, site), audit = auditWords(view, token, site);
  if (!audit && !answer && view.flips === undefined) return []; // as in a report
  const section = make("section", undefined, { class: "flip" }), say = (words) => section.append(make("p", words));
  section.append(make("h4", "If this decision were flipped"));
  if (answer?.words?.length) say(answer.words.join(" "));
  if (audit) say(audit);
  if (answer?.waits) say("The model is being run. The side bar shows how far it is.");
  if (answer?.problem) say(answer.problem);
  if (answer?.words?.length || answer?.waits) return [section];
  if (view.flips !== true) {
    if (view.flips) say(view.flips);
    return [section];
  }
  const ask = make("button", "What would a flip do?", { type: "button", class: "ask-flip" });
  ask.addEventListener("click", () => { ask.disabled = true; view.panel.focus({ preventScroll: true }); view.askFlip(token, site); });
  section.append(ask);
  return [section];
}

/** What an audit found about a decision; empty where there is none. */
function auditWords(view, token, site) {
  const lens = view.lenses.find((each) => each.slug === AUDIT_LENS && each.ofCells);
  const worth = lens ? valueOf(view, lens, token, site) : NaN;
  if (Number.isNaN(worth)) return "";
  const { ran } = decisionOf(view.trace, token, site);
  const change = ran ? worth : -worth, above = lens.note.split("; ").at(-1);
  return `Audit: ${ran ? "skipping" : "running"} it would ${change > 0 ? "raise" : "lower"} the loss on the next token by ${shortNumber(Math.abs(change))} nats (${above}).`;
}

/** Numbers of each token, a column each. */
function numbers(view, tokens) {
  const { trace } = view, lens = lensNow(view), several = tokens.length > 1;
  const table = make("table", undefined, { class: several ? "numbers several" : "numbers" });
  const row = (name, of) => {
    const line = make("tr");
    line.append(make("th", name, { scope: "row" }), ...tokens.map(({ token }) => make("td", of(token))));
    return line;
  };
  if (several) {
    const line = make("tr");
    line.append(make("td"), ...tokens.map(({ token, name, colour }) => {
      const head = make("th", undefined, { scope: "col" });
      if (name) { const badge = make("span", name, { class: "badge" }); badge.style.setProperty("--pin", colour); head.append(badge); }
      head.append(quoted(view, token));
      return head;
    }));
    table.append(line);
  }
  // Beside others a value has no room for its unit, which then stands with the name.
  const measured = (name, unit, of) => row(several ? `${name} (${unit})` : name, (token) => {
    const value = of(token);
    if (value === null) return "unknown";
    return several ? value : `${value} ${unit}`;
  });
  const nats = (name, values) => measured(name, "nats", (token) => (Number.isNaN(values[token]) ? null : values[token].toFixed(2)));
  table.append(
    measured("Context", "tokens", (token) => (trace.context[token] < 0 ? null : trace.context[token].toLocaleString("en"))),
    measured("Layers used", `of ${trace.layers}`, (token) => (Number.isNaN(trace.used[token]) ? null : String(trace.used[token]))));
  if (trace.nextToken)
    table.append(nats("Loss on next", trace.nll), nats("Surprisal", trace.surprisal), nats("Entropy", trace.entropy));
  if (trace.classes.length > 1 && several)
    table.append(row("Class of its text", (token) => classOf(trace, token)?.label ?? "unknown"));
  if (!["used", "nll", "surprisal", "entropy"].includes(lens.stored))
    table.append(row(lens.ofCells ? `${lens.name}, ${trace.sites[siteNow(view)].label}` : lens.name, (token) => valueWords(lens, valueOf(view, lens, token, siteNow(view)))));
  return table;
}

/** Where a margin lies between 1 and -1: small ones stay apart, and large ones do not flatten them. */
function heightOf(margin, spread) {
  return Math.max(-1, Math.min(1, Math.asinh((3 * margin) / spread) / Math.asinh(15)));
}

/** Score against threshold at every site, in running order, each unit in a strip of its own. */
function path(view, tokens) {
  const { trace } = view, units = unitsOf(view);
  const height = units.length * (PATH.unit + PATH.gap) + PATH.bottom;
  const figure = draw("svg", { viewBox: `0 0 ${PATH.width} ${height}`, class: "path", role: "img", "aria-label": "Score against threshold at every site; the table of all sites says the same." });
  const step = (PATH.width - PATH.left - PATH.right) / trace.rows;
  units.forEach((unit, place) => {
    const top = place * (PATH.unit + PATH.gap) + PATH.gap, middle = top + PATH.unit / 2;
    figure.append(
      draw("text", { x: 0, y: top - 5, class: "unit" }, `${trace.palette.names[unit]}: ↑ for running, ↓ for skipping`),
      draw("line", { x1: PATH.left - 6, x2: PATH.width - PATH.right, y1: middle, y2: middle, class: "threshold" }),
      draw("text", { x: PATH.left - 9, y: middle + 3.5, class: "tick", "text-anchor": "end" }, "0"));
    const gated = new Set(trace.sites.filter((site) => site.unit === unit).map((site) => site.row));
    for (let row = 0; row < trace.rows; row++)
      if (!gated.has(row)) figure.append(draw("rect", { x: PATH.left + (row + 0.5) * step - 2.5, y: middle - 2.5, width: 5, height: 5, class: "always" }));
    tokens.forEach((each, i) => {
      const shift = (i - (tokens.length - 1) / 2) * Math.min(2.2, step / 4);
      for (const site of trace.sites)
        if (site.unit === unit) figure.append(...siteMark(view, each, site, PATH.left + (site.row + 0.5) * step + shift, middle, tokens.length > 1));
    });
  });
  for (let row = 0; row < trace.rows; row += 10)
    figure.append(draw("text", { x: PATH.left + (row + 0.5) * step, y: height - 4, class: "tick", "text-anchor": "middle" }, String(row)));
  figure.append(draw("text", { x: PATH.width - PATH.right, y: height - 4, class: "tick", "text-anchor": "end" }, trace.rows > trace.layers ? "layer run" : "layer"));
  const whole = make("figure");
  const caption = make("figcaption");
  caption.append(
    "● ran ◇ skipped ■ no gate. Line: threshold. Each gate has its own scale: the margin over its threshold, divided by the spread of its margins on this text (symmetric logarithm).");
  whole.append(make("h4", "Path through the gates"), figure, caption);
  return whole;
}

function siteMark(view, { token, colour }, site, x, middle, several) {
  const decision = decisionOf(view.trace, token, site.place);
  const known = !Number.isNaN(decision.margin);
  const y = middle - (known ? heightOf(decision.margin, site.spread) * (PATH.unit / 2 - 4) : 0);
  const fill = colour ?? (several ? "currentColor" : `var(--unit-${site.unit})`);
  const place = { "data-cell": `${token} ${site.place}` }, r = PATH.mark;
  const mark = decision.ran
    ? draw("circle", { cx: x, cy: y, r, fill, ...place })
    : draw("path", { d: `M${x} ${y - r - 0.8}L${x + r + 0.8} ${y}L${x} ${y + r + 0.8}L${x - r - 0.8} ${y}Z`, fill: "var(--st-background-color)", stroke: fill, "stroke-width": 1.4, ...place });
  if (view.site === site.place && view.token === token) mark.classList.add("chosen");
  if (!known) { mark.setAttribute("opacity", "0.5"); return [mark]; }
  return [draw("line", { x1: x, x2: x, y1: middle, y2: y, stroke: fill, class: "stem" }), mark];
}

/** Every site in running order, in words; written when it is opened. */
function sitesTable(view, tokens, open) {
  const details = make("details");
  details.append(make("summary", `All ${view.trace.sites.length} sites in running order`));
  const write = () => {
    if (!details.open || details.querySelector("table")) return;
    const table = make("table", undefined, { class: "sites" }), head = make("tr");
    head.append(make("th", "site", { scope: "col" }), ...tokens.flatMap(({ token }) => ["decision", "score", "threshold"].map((name) => make("th", tokens.length > 1 ? `${token}: ${name}` : name, { scope: "col" }))));
    table.append(head);
    for (const site of view.trace.sites) {
      const line = make("tr");
      line.append(make("th", site.label, { scope: "row" }));
      for (const { token } of tokens) {
        const decision = decisionOf(view.trace, token, site.place), words = scoreWords(decision);
        line.append(make("td", decision.word), make("td", words.score), make("td", words.limit));
      }
      table.append(line);
    }
    details.append(table);
  };
  details.addEventListener("toggle", write);
  details.open = open;
  write();
  return details;
}

/** The class that the model predicts of a token's text; nothing if it predicts the next token. */
function predictedClass(view, token) {
  const { trace } = view;
  if (!trace.classes.length && trace.nextToken) return [];
  const whole = make("section", undefined, { class: "text-class" }), found = classOf(trace, token);
  whole.append(make("h4", "Predicted class of the text"));
  const share = found && (found.share === null ? "unknown" : `${(100 * found.share).toFixed(1)}%`);
  whole.append(make("p", found ? `“${found.label}”, probability ${share}` : "Unknown."));
  if (!trace.nextToken) whole.append(make("p", "The model reads the text as a whole and predicts no next token, so there is no loss."));
  return [whole];
}

/** The most likely next tokens, and which of them came. */
function nextTokens(view, token) {
  const likely = likelyAfter(view.trace, token);
  const whole = make("section");
  whole.append(make("h4", "Most likely next tokens"));
  if (!likely) { whole.append(make("p", "Unknown: this trace was recorded without them.")); return whole; }
  const list = make("ol", undefined, { class: "likely" });
  for (const { text, share, came } of likely) {
    const line = make("li"), bar = make("span", undefined, { class: "bar-of" }), fill = make("span");
    fill.style.width = `${100 * share}%`;
    bar.append(fill);
    line.classList.toggle("came", came);
    line.append(make("span", `“${text.replaceAll("\n", "↵").replaceAll("\t", "⇥")}”`, { class: "word" }), bar, make("span", `${(100 * share).toFixed(1)}%${came ? " ← came" : ""}`, { class: "share" }));
    list.append(line);
  }
  whole.append(list);
  return whole;
}
