// Draws the figures of a report when they come into view, in the colours of the page, and saves
// them at print size. Nothing here asks a network.

const PRINT = { width: 680, scale: 3.125 }; // 180 mm, and a PNG with 300 dots per inch
const CONFIG = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: ["toImage", "sendDataToCloud"] };

/** A figure as it was written. */
function stored(plot) { return JSON.parse(plot.nextElementSibling.textContent); }

/** The same with its texts in one colour; the template's own suits neither page best. */
function inked(figure, colour, background) {
  const layout = { ...figure.layout, paper_bgcolor: background, plot_bgcolor: background };
  layout.font = { ...(layout.template?.layout?.font ?? {}), ...(layout.font ?? {}), color: colour };
  return { data: figure.data, layout };
}

function pageInk() { return getComputedStyle(document.documentElement).getPropertyValue("--ink").trim(); }

function drawFigure(plot) {
  plot.dataset.drawn = "yes";
  const { data, layout } = inked(stored(plot), pageInk(), "rgba(0,0,0,0)");
  return Plotly.react(plot, data, layout, CONFIG);
}

function saveFigure(plot, format) {
  const { data, layout } = inked(stored(plot), "#000", "#fff");
  const height = layout.height ?? plot.clientHeight;
  return Plotly.downloadImage({ data, layout }, { format, filename: plot.dataset.name, width: PRINT.width, height, scale: format === "png" ? PRINT.scale : 1 });
}

const plots = [...document.querySelectorAll(".plot")];
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries)
    if (isIntersecting) { seen.unobserve(target); drawFigure(target); }
}, { rootMargin: "400px" });
plots.forEach((plot) => seen.observe(plot));
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-save]");
  if (button) saveFigure(button.closest("figure").querySelector(".plot"), button.dataset.save);
});
const redraw = (of) => plots.filter(of).forEach(drawFigure);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw((plot) => plot.dataset.drawn));

// On paper every figure is drawn and every table is open.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
  redraw(() => true);
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
  redraw(() => true);
});
