// What components that show a text share; it comes before the file of each.

/** Spans in a block, at least: the browser lays out only the blocks in view. */
const CHUNK = 200;

/** What each mounted view remembers between runs of Python. */
const VIEWS = new WeakMap();

/** Write a text, a span for each group of tokens that share characters; as text, never as HTML. */
function writeText(view, { count, span, sequence, source, text }, style = () => {}) {
  const parts = document.createDocumentFragment();
  const several = count > 0 && sequence[count - 1] !== sequence[0];
  view.spans = new Array(count);
  let chunk = null, filled = 0;
  for (let i = 0; i < count; i++) {
    if (i && span[i] === span[i - 1]) { view.spans[i] = view.spans[i - 1]; continue; }
    if (several && (!i || sequence[i] !== sequence[i - 1])) {
      const heading = document.createElement("h4");
      heading.textContent = source.get(i);
      heading.setAttribute("role", "presentation");
      parts.append(heading);
      chunk = null;
    }
    if (!chunk) { chunk = document.createElement("div"); chunk.className = "chunk"; parts.append(chunk); filled = 0; }
    const element = document.createElement("span");
    element.dataset.token = String(i);
    element.id = `token-${i}`;
    element.setAttribute("role", "option");
    fill(element, visible(text.get(i)));
    if (!text.get(i).trim()) element.setAttribute("aria-label", blankName(text.get(i)));
    style(element, i);
    view.spans[i] = element;
    chunk.append(element);
    filled += 1;
    if (filled >= CHUNK && element.textContent.endsWith("\n")) chunk = null;
  }
  view.tokens.replaceChildren(parts);
}

/** Put a text into a span; a line end has a faint sign before it, which is not part of the text. */
function fill(element, text) {
  if (!text.includes("\n")) { element.textContent = text; return; }
  text.split("\n").forEach((line, i) => {
    if (i) {
      const sign = document.createElement("i");
      sign.className = "line-end";
      element.append(sign, "\n");
    }
    element.append(line);
  });
}

/** What a token of blanks alone is called by those who do not see it. */
function blankName(text) { return text.includes("\n") ? "line end" : text ? "space" : "no characters"; }

/** The token that an element shows, if it shows one. */
function tokenAt(target) {
  const token = target?.closest?.("[data-token]")?.dataset.token;
  return token === undefined ? null : Number(token);
}

/** Show control characters as their pictures; line ends and tabs stay what they are. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

/** Bring a span into view, moving nothing but the text. */
function scrollTo(view, span) {
  const top = span.getBoundingClientRect().top - view.tokens.getBoundingClientRect().top;
  if (top < 0 || top > view.tokens.clientHeight - 30) view.tokens.scrollTop += top - view.tokens.clientHeight / 2;
}

/** The first token of the next span, or of the one before, if there is one. */
function nextSpan(view, from, direction) {
  let i = from;
  while (i >= 0 && i < view.spans.length && view.spans[i] === view.spans[from]) i += direction;
  return view.spans[i] ? Number(view.spans[i].dataset.token) : null;
}
