// Tells Python which point of a Plotly figure on the page was clicked. Streamlit may draw the figure
// anew at any time, so it is looked for when it is pressed, before it says what was clicked.

const LISTENERS = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const known = LISTENERS.get(parentElement);
  if (known) { known.chart = data.chart; known.tell = setTriggerValue; return known.leave; }
  const listener = { chart: data.chart, tell: setTriggerValue, bound: new WeakSet() };
  const press = ({ target }) => {
    const figure = target.closest?.(`.st-key-${CSS.escape(listener.chart)} .js-plotly-plot`);
    if (!figure || listener.bound.has(figure)) return;
    listener.bound.add(figure);
    figure.on("plotly_click", ({ points: [point] }) => listener.tell?.("point", told(point)));
  };
  document.addEventListener("pointerdown", press, true);
  listener.leave = () => {
    document.removeEventListener("pointerdown", press, true);
    listener.tell = null;
    LISTENERS.delete(parentElement);
  };
  LISTENERS.set(parentElement, listener);
  return listener.leave;
}

function told({ curveNumber, pointNumber, x, customdata }) {
  const own = Array.isArray(customdata) || ArrayBuffer.isView(customdata) ? Array.from(customdata) : customdata ?? null;
  return { curve: curveNumber, at: pointNumber, x, data: own };
}
