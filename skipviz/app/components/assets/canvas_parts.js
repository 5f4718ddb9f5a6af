// What pages put on the canvas beside its trace: lenses, answers to questions about decisions, and
// what is to be selected. Each part comes by itself (canvas_beside.js), and is read once.

const READ = new WeakMap();

/** All parts there are for the trace that is shown, read. */
function partsOf(view) {
  const found = window.skipvizParts?.get(view.key);
  return found ? [...found.values()].map((data) => readPart(view, data)) : [];
}

function readPart(view, data) {
  if (READ.has(data)) return READ.get(data);
  const part = data.parts ? unpack(data.bytes, data.parts) : () => null, read = { data };
  if (data.lens) read.lens = { ...data.lens, values: part(data.lens.stored) };
  if (data.question) {
    read.answer = { ...data.question, marks: null };
    const at = part("at"), how = part("how");
    if (at) {
      read.answer.marks = new Uint8Array(view.trace.count * view.trace.sites.length);
      at.forEach((place, i) => { read.answer.marks[place] = how[i]; });
    }
  }
  READ.set(data, read);
  return read;
}

/** Take in the parts that there are now. */
function takeParts(view) {
  const parts = partsOf(view);
  view.lenses = distinct([...view.own, ...parts.flatMap(({ lens }) => lens ?? [])]);
  view.answers = parts.flatMap(({ answer }) => answer ?? []);
  // A lens that a reader has just asked for is looked through at once; offered ones have no number.
  for (const { data, lens } of parts) {
    if (!data.fresh || data.fresh <= (view.seen.get(view.key) ?? 0)) continue;
    view.seen.set(view.key, data.fresh);
    if (lens.known) view.wantedLens = view.lenses.find((each) => each.values === lens.values).slug;
  }
  fillLensChoice(view);
}

/** Do what pages ask for, once each. */
function followParts(view) {
  for (const { data } of partsOf(view)) {
    if (data.name !== "asked") continue;
    const [number, token, site] = data.select ?? [null];
    if (number !== null && number !== view.followed.get(view.key)) {
      view.followed.set(view.key, number);
      select(view, token, { ...(site === null ? {} : { site }), told: false });
      // Later: a rerun at once would come between other widgets and their values.
      tell(view, { later: true, push: true });
    }
    if (view.clears.has(view.key) && data.rangeClears > view.clears.get(view.key)) setRange(view, null);
    view.clears.set(view.key, data.rangeClears);
  }
}

/** Several parts may come one after the other: all are taken in at once. */
function listenToParts(view, signal) {
  let due = null;
  window.addEventListener("skipviz-parts", ({ detail }) => {
    if (detail !== view.key || due !== null) return;
    due = setTimeout(() => {
      due = null;
      if (!view.root.isConnected) return;
      takeParts(view);
      writeAddress(view, false); // it names the lens that is shown
      repaint(view);
      followParts(view);
      performance.mark("skipviz-painted");
    });
  }, { signal });
}

/** Lenses of which no two have one name in the address. */
function distinct(lenses) {
  const taken = new Set();
  return lenses.map((lens) => {
    let slug = lens.slug;
    for (let i = 2; taken.has(slug); i++) slug = `${lens.slug}-${i}`;
    taken.add(slug);
    return slug === lens.slug ? lens : { ...lens, slug };
  });
}

/** The answer that the map shows: of the selected decision, else of the question of the page. */
function answerNow(view) {
  const own = answerOf(view, view.token, view.site);
  return own?.marks ? own : view.answers.find(({ stays }) => stays) ?? null;
}

/** The answer to what flipping a decision would do, if it was asked. */
function answerOf(view, token, site) {
  if (token === null || site === null) return null;
  const found = view.answers.filter(({ cell }) => cell && cell[0] === token && cell[1] === site);
  return found.find(({ marks }) => marks) ?? found[0] ?? null;
}
