// What the other modules share: finding and making elements, and how numbers are written.

export const byId = (id) => document.getElementById(id);

/** A new element. Text is always set as text and never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Seconds as a player shows them, with tenths: 75.26 -> "1:15.3". */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const [minutes, rest] = [Math.floor(tenths / 600), (tenths % 600) / 10];
  return `${minutes}:${rest.toFixed(1).padStart(4, "0")}`;
}

/** A share between 0 and 1: "42.0 %". */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Shows a node, or hides it and takes it out of the order of focus. */
export function show(node, shown = true) {
  node.hidden = !shown;
}

/** Replaces the rows of a definition list by [term, description] pairs. */
export function fillTerms(list, pairs) {
  const rows = pairs.map(([term, value]) => make("div", {}, make("dt", { textContent: term }), make("dd", {}, value)));
  list.replaceChildren(...rows);
}
