// Hands what Python sent, a part of what stands on a canvas, to the canvas of its trace, which reads
// all parts there are. Both are in one window, so the parts are kept there.

const PLACES = new WeakMap();

export default function ({ data, parentElement }) {
  const parts = (window.skipvizParts ??= new Map());
  const tell = (key) => window.dispatchEvent(new CustomEvent("skipviz-parts", { detail: key }));
  const remove = ({ key, name, data }) => {
    if (parts.get(key)?.get(name) === data) parts.get(key).delete(name);
    tell(key);
  };
  const before = PLACES.get(parentElement);
  if (before && before.key !== data.key) remove(before);
  if (!parts.has(data.key)) parts.set(data.key, new Map());
  parts.get(data.key).set(data.name, data);
  PLACES.set(parentElement, { key: data.key, name: data.name, data });
  tell(data.key);
  return () => {
    remove(PLACES.get(parentElement));
    PLACES.delete(parentElement);
  };
}
