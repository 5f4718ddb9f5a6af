// Chooses which trace is shown. A trace comes as a script, which a page from disk may load; the
// address says which, and what is selected in it.

const choice = document.getElementById("choice"), known = [...choice.options].map((option) => option.value);
const show = viewerIn(document.getElementById("canvas"), TEMPLATE, STYLE);
const loaded = new Map();
let current = null;

window.skipvizTrace = (name, data) => {
  loaded.set(name, data);
  if (name === current) show(data, name);
};

function open(name) {
  current = name;
  choice.value = name;
  for (const about of document.querySelectorAll(".about")) about.hidden = about.dataset.trace !== name;
  document.getElementById("missing").textContent = "";
  if (loaded.has(name)) { show(loaded.get(name), name); return; }
  const script = document.createElement("script");
  script.src = `traces/${name}.js`;
  script.onerror = () => { document.getElementById("missing").textContent = `The file traces/${name}.js is not there.`; };
  document.head.append(script);
}

/** Open the trace that the address names; a name that is not there opens the first, and is said. */
function openNamed() {
  const named = hashParameters().get("trace");
  if (named !== null && !known.includes(named)) {
    writeHash({ trace: null, token: null, site: null });
    open(known[0]);
    document.getElementById("missing").textContent = `There is no trace “${named}” here; the first is shown.`;
    return;
  }
  if ((named ?? known[0]) !== current) open(named ?? known[0]);
}

choice.addEventListener("change", () => {
  writeHash({ trace: choice.value, token: null, site: null });
  open(choice.value);
});
document.getElementById("link").addEventListener("click", async () => {
  writeHash({ trace: current });
  const said = document.getElementById("copied");
  try { await navigator.clipboard.writeText(location.href); said.textContent = "Copied."; }
  catch { said.textContent = "The address of this page is the link."; }
});
window.addEventListener("hashchange", openNamed);
openNamed();
