// Shows the app's canvas on a page without Python: hands it a trace as it hands Streamlit's, and
// keeps what is selected in the part of the address behind "#", which a file from disk has too.

/** A column of bytes, as the canvas reads it from the table that Streamlit sends. */
function bytesOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return { numRows: bytes.length, getChild: () => ({ toArray: () => bytes }) };
}

/** What stands behind "#", if it is of ours and not a place on the page. */
function hashParameters() {
  const given = new URLSearchParams(location.hash.slice(1));
  return ["trace", "token", "lens"].some((name) => given.has(name)) ? given : new URLSearchParams();
}

function writeHash(changes) {
  const now = hashParameters();
  for (const [name, value] of Object.entries(changes)) if (value === null) now.delete(name); else now.set(name, value);
  const hash = now.size ? `#${now}` : "";
  // Where nothing is left, nothing of ours may have been there: the address is left alone.
  if (hash || hashParameters().size) history.replaceState(history.state, "", location.pathname + location.search + hash);
}

/** Select what the address says of the trace that is shown. */
function selectNamed(view) {
  const given = hashParameters(), token = given.get("token");
  const site = view.trace.sites.findIndex((each) => each.label === given.get("site"));
  const lens = view.lenses.find((each) => each.slug === given.get("lens") && each.known);
  if (lens) { view.lensChoice.value = lens.slug; chooseLens(view, lens.slug); }
  if (/^\d+$/.test(token ?? "") && Number(token) < view.trace.count)
    select(view, Number(view.spans[Number(token)].dataset.token), { site: site < 0 ? null : site, push: false, told: false });
}

/** Mount a canvas in an element once; return what shows a trace in it, under a name in links. */
function viewerIn(element, template, style) {
  const root = element.attachShadow({ mode: "open" });
  root.innerHTML = `<style>${style}</style>${template}`;
  let shown = null, trace = {};
  const tell = (name, said) => {
    if (name !== "selected") return; // a range that was taken back says nothing
    const view = VIEWS.get(root), [, token, site] = said;
    writeHash({ ...trace, token, site: site === null ? null : view.trace.sites[site].label });
  };
  root.querySelector(".lens").addEventListener("change", (event) => writeHash({ ...trace, lens: event.target.value }));
  // An address that names another trace selects nothing in this one.
  const named = () => {
    const given = hashParameters().get("trace");
    if (shown && (given === null || given === trace.trace)) selectNamed(VIEWS.get(root));
  };
  window.addEventListener("hashchange", named);
  return (data, name) => {
    trace = name === undefined ? {} : { trace: name };
    shown = { ...data, bytes: bytesOf(data.bytes) };
    canvasComponent({ data: shown, parentElement: root, setStateValue: tell, setTriggerValue: () => {} });
    named();
  };
}
