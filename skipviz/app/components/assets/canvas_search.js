// Ways to a token: a search in the text, and the tokens that stand out.

const JUMPS = 10; // tokens that a jump goes round

/** Find a string in the text, whatever its case; a hit may reach over several tokens. */
function search(view) {
  const wanted = view.query.value.toLocaleLowerCase();
  view.hits = [];
  if (wanted) {
    const { texts, count } = view.trace, starts = [], parts = [];
    let length = 0;
    for (let i = 0; i < count; i++) {
      const text = texts[i].toLocaleLowerCase();
      if (i && view.trace.sequence[i] !== view.trace.sequence[i - 1]) { parts.push("\0"); length += 1; } // no hit reaches from one text into the next
      starts.push(length);
      parts.push(text);
      length += text.length;
    }
    const text = parts.join("");
    let token = 0;
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
      while (token + 1 < count && starts[token + 1] <= at) token += 1;
      let last = token;
      while (last + 1 < count && starts[last + 1] < at + wanted.length) last += 1;
      view.hits.push([Number(view.spans[token].dataset.token), last]);
    }
  }
  view.hit = -1;
  showHits(view);
}

function showHits(view) {
  const tokens = view.hits.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
  moveClass(view, "found", tokens);
  const count = view.hits.length;
  view.hitCount.textContent = !view.query.value ? "" : !count ? "no hit" : view.hit < 0 ? `${count} ${count === 1 ? "hit" : "hits"}` : `${view.hit + 1} of ${count}`;
  for (const button of view.hitButtons) button.disabled = !count;
}

/** Go to the next or the previous hit. */
function goToHit(view, move) {
  if (!view.hits.length) return;
  view.hit = view.hit < 0 ? (move > 0 ? 0 : view.hits.length - 1) : (view.hit + move + view.hits.length) % view.hits.length;
  showHits(view);
  select(view, view.hits[view.hit][0], { later: true });
}

/** The tokens with the lowest or the highest values, one for each span. */
function extremes(view, values, direction) {
  const known = [];
  for (let i = 0; i < view.trace.count; i++)
    if (!Number.isNaN(values[i]) && Number(view.spans[i].dataset.token) === i) known.push(i);
  return known.sort((a, b) => direction * (values[a] - values[b]) || a - b).slice(0, JUMPS);
}

/** Go to the next of the tokens that stand out. */
function jump(view, button, values, direction) {
  const tokens = extremes(view, values, direction);
  if (!tokens.length) return;
  const place = (tokens.indexOf(view.token) + 1) % tokens.length;
  select(view, tokens[place], { later: true });
  view.jumped.textContent = `${button.textContent}: ${place + 1} of ${tokens.length}`;
}

function listenForSearch(view, find) {
  view.hits = [];
  view.hit = -1;
  view.query.addEventListener("input", () => search(view));
  view.query.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); goToHit(view, event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") { view.query.value = ""; search(view); view.tokens.focus({ preventScroll: true }); }
    event.stopPropagation();
  });
  find("previous-hit").addEventListener("click", () => goToHit(view, -1));
  find("next-hit").addEventListener("click", () => goToHit(view, 1));
  const skipped = find("most-skipped"), wrong = find("most-wrong");
  skipped.addEventListener("click", () => jump(view, skipped, view.trace.used, 1));
  wrong.addEventListener("click", () => jump(view, wrong, view.trace.nll, -1));
}
