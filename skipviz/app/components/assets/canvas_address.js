// The page's address: the trace, the selected token and site, the range (its first and last token,
// "2-7"), the pins ("1.8") and the lens that is shown. Everything else in it is left as it is.
// Streamlit reads the address at every run, and runs the page when one goes Back.

const OURS = ["trace", "token", "site", "range", "pins", "lens"];
let writing = false;

/** The parameters of the address as they are written, name first. */
function parameters() {
  return location.search.slice(1).split("&").filter(Boolean).map((part) => [[...new URLSearchParams(part).keys()][0], part]);
}

function parameter(name) { return new URLSearchParams(location.search).get(name); }

/** Whether the address is of this trace; one that names none is taken to be. */
function ofThisTrace(view) {
  const given = parameter("trace");
  return given === null || given === view.address;
}

/** What the address selects, or null if it is of another trace or keeps nothing for this canvas. */
function readAddress(view) {
  if (view.address === null || !ofThisTrace(view)) return null;
  const given = parameter("token"), token = /^\d+$/.test(given ?? "") ? Number(given) : null;
  const label = parameter("site"), site = view.trace.sites.findIndex((each) => each.label === label);
  return { token: token === null ? null : spanOf(view, token), site: site < 0 ? null : site, ...readRangeAndPins(view) };
}

/** The first token that shares the characters of one, or null if there is no such token. */
function spanOf(view, token) { return token < view.trace.count ? Number(view.spans[token].dataset.token) : null; }

function readRangeAndPins(view) {
  const ends = /^(\d+)-(\d+)$/.exec(parameter("range") ?? "")?.slice(1).map(Number);
  const pins = (parameter("pins") ?? "").split(".").filter((part) => /^\d+$/.test(part)).map((part) => spanOf(view, Number(part)));
  return {
    range: ends && ends[0] <= ends[1] && ends[1] < view.trace.count ? ends : null,
    pins: [...new Set(pins.filter((token) => token !== null))].slice(-PINS),
  };
}

/** Write what is shown; as a new place in the history where going Back is to undo it. */
function writeAddress(view, push) {
  if (view.address === null) return;
  const wanted = [["trace", view.address]];
  if (view.token !== null) wanted.push(["token", view.token]);
  if (view.site !== null) wanted.push(["site", view.trace.sites[view.site].label]);
  if (view.range) wanted.push(["range", view.range.join("-")]);
  if (view.pins.length) wanted.push(["pins", view.pins.join(".")]);
  if (view.lens !== view.lenses[0].slug) wanted.push(["lens", view.lens]);
  const others = parameters().filter(([name]) => !OURS.includes(name)).map(([, part]) => part);
  const search = [...others, ...wanted.map(([name, value]) => `${name}=${encodeURIComponent(value)}`)].join("&");
  if (search === location.search.slice(1)) return;
  const moved = push && (!ofThisTrace(view) || String(parameter("token") ?? "") !== String(view.token ?? ""));
  const address = location.pathname + (search ? `?${search}` : "") + location.hash;
  writing = true; // what is written here is told to the listeners below before this returns
  history[moved ? "pushState" : "replaceState"](history.state, "", address);
  writing = false;
}

/** Follow the address: Back and Forward select what it says, and what others write keeps ours. */
function listenToAddress(view, signal) {
  window.addEventListener("popstate", () => {
    const named = readAddress(view);
    if (named) {
      setRange(view, named.range);
      setPins(view, named.pins);
      select(view, named.token, { site: named.site, push: false });
    } else if (parameter("trace") !== null) { view.goingBack = true; view.open(parameter("trace")); }
  }, { signal });
  window.navigation?.addEventListener("currententrychange", (event) => {
    if (writing || !view.root.isConnected) return; // a page that was just left has a canvas too
    if (event.navigationType === "push" || event.navigationType === "replace") writeAddress(view, false);
  }, { signal });
}
