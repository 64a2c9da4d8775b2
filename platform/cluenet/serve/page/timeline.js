// Clues under the player: a list of buttons, each with its span on the time axis of the video.
import { byId, clock, make, show } from "./dom.js";
import { duration, momentOf, now, onMoment, seekTo } from "./player.js";

/** A space at which no line ends. */
const UNBROKEN = "\u00a0";
const list = byId("clues");
let response = null;

/** The clues of a VideoQAResponse, or nothing for null. */
export function showClues(found) {
  response = found;
  show(byId("evidence"), Boolean(found));
  if (found) drawAll();
}

/** Seeks to a clue and marks it, wherever it was named. */
export function select(clue) {
  for (const [place, row] of [...list.children].entries()) mark(row.firstChild, response.clues[place] === clue);
  seekTo(clue);
}

/** Whether there is a moment to show. */
export const isPlaced = (clue) => momentOf(clue) !== null;

const mark = (button, current) => (current ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current"));

function drawAll() {
  const { clues } = response;
  byId("clues-hint").textContent = summary(clues);
  drawAxis();
  list.replaceChildren(...clues.map((clue, place) => make("li", {}, row(clue, place + 1))));
  follow();
}

function summary(clues) {
  if (!clues.length) return "The model stated no clue.";
  const kept = clues.filter((clue) => clue.kept).length;
  const measured = clues.some((clue) => clue.utility !== null);
  const worth = measured ? " Worth: by how much a clue raises the log-probability of this answer." : "";
  return `${kept} of ${clues.length} kept by the filter. Choose one to see its moment.${worth}`;
}

/** Ends of the axis, and a tick for every frame that the model looked at. */
function drawAxis() {
  const ticks = response.video.frame_seconds.map((seconds) => placed(make("i"), seconds));
  byId("axis").replaceChildren(...ticks, make("span", { textContent: clock(0) }), make("span", { textContent: clock(total()) }));
}

function row(clue, number) {
  const button = make(
    "button",
    { type: "button", className: `clue ${clue.kept ? "kept" : "dropped"}`, disabled: !isPlaced(clue) },
    make("span", { className: "number", textContent: number }),
    make("span", { className: "words", textContent: clue.text }),
    make("span", { className: "verdict", textContent: clue.kept ? "✓ kept" : "✕ dropped" }),
    make("span", { className: "hint", textContent: facts(clue) }),
    track(clue),
  );
  button.addEventListener("click", () => select(clue));
  return button;
}

/** "0:01.0 to 0:02.5 · box at 0:01.5 · gate 0.91 · worth +0.40 nats", as far as it is known. */
function facts({ start_seconds: start, end_seconds: end, box, gate, utility }) {
  const parts = [
    start === null ? "no place in time" : end === null ? `from ${clock(start)}` : `${clock(start)} to ${clock(end)}`,
    box && `box at ${clock(box.seconds)}`,
    gate !== null && `gate ${gate.toFixed(2)}`,
    utility !== null && `worth ${utility < 0 ? "−" : "+"}${Math.abs(utility).toFixed(2)} nats`,
  ];
  return parts.filter(Boolean).map((part) => part.replaceAll(" ", UNBROKEN)).join(" · ");
}

function track(clue) {
  const bar = placed(make("span", { className: "bar" }), clue.start_seconds ?? momentOf(clue));
  bar.style.width = share((clue.end_seconds ?? momentOf(clue)) - (clue.start_seconds ?? momentOf(clue)));
  const line = make("span", { className: "track", ariaHidden: "true" });
  if (isPlaced(clue)) line.append(bar);
  return line;
}

function placed(node, seconds) {
  node.style.left = share(seconds);
  return node;
}

const total = () => duration() ?? response.video.end_seconds;
const share = (seconds) => `${100 * Math.min(1, Math.max(0, seconds / total()))}%`;

/** Moves the line of the present moment, which all tracks share. */
function follow() {
  if (response) byId("evidence").style.setProperty("--now-at", share(now()));
}

onMoment(follow);
byId("player").addEventListener("durationchange", () => response && drawAll());
