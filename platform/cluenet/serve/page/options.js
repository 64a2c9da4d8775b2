// Rows for the options: as many as one likes.
import { byId, make } from "./dom.js";

const AT_FIRST = 2;
const list = byId("options");

/** Texts of the rows that are filled in. */
export const options = () => fields().map((field) => field.value.trim()).filter(Boolean);

const fields = () => [...list.querySelectorAll("input")];

function add() {
  const field = make("input", { type: "text" });
  const remove = make("button", { type: "button", textContent: "✕" });
  const row = make("li", {}, field, remove);
  remove.addEventListener("click", () => drop(row));
  list.append(row);
  name();
  return field;
}

/** Focus moves to a neighbour, not to the start of the page. */
function drop(row) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  name();
  (next?.querySelector("input") ?? byId("add-option")).focus();
}

function name() {
  for (const [place, row] of [...list.children].entries()) {
    row.querySelector("input").ariaLabel = `Option ${place + 1}`;
    row.querySelector("button").ariaLabel = `Remove option ${place + 1}`;
  }
}

for (let place = 0; place < AT_FIRST; place++) add();
byId("add-option").addEventListener("click", () => add().focus());
