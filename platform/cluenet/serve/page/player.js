// The video of the visitor, never sent anywhere by this module, and boxes over its picture.
import { byId, show } from "./dom.js";

/** A box was seen in one frame: it is drawn this near to that moment, in seconds. */
const NEAR = 0.25;
/** Times come rounded to microseconds: a moment is looked up a little later, or the frame before it would show. */
const AFTER = 0.0005;
const LABEL_PIXELS = 14;
const SVG = "http://www.w3.org/2000/svg";

const video = byId("player");
const boxes = byId("boxes");
let clues = [];
let selected = null;
let address = null;

/** Shows a file, or none; a file that this browser cannot play can still be asked about. */
export function load(file) {
  if (address) URL.revokeObjectURL(address);
  address = file ? URL.createObjectURL(file) : null;
  say("");
  show(byId("stage"), Boolean(file));
  if (file) video.src = address;
  else video.removeAttribute("src");
}

/** Clues whose boxes are drawn, [{box, kept, ...}]; their numbers are their places. */
export function showBoxesOf(found) {
  clues = found;
  selected = null;
  draw();
}

/** Stops at a clue: at the frame of its box, or where it starts. */
export function seekTo(clue) {
  selected = clue;
  video.pause();
  video.currentTime = momentOf(clue) + AFTER;
  byId("stage").scrollIntoView({ block: "nearest" });
  draw();
}

/** Seconds of the file; null for a clue that has no place in time. */
export const momentOf = (clue) => clue.box?.seconds ?? clue.start_seconds;

export const now = () => video.currentTime;

/** Seconds of the whole file, or null where this browser does not know. */
export const duration = () => (Number.isFinite(video.duration) ? video.duration : null);

/** Calls back whenever another moment is shown, or the duration becomes known. */
export function onMoment(call) {
  const moved = () => {
    draw();
    call();
  };
  const follow = () => {
    moved();
    if (!video.paused && !video.ended) requestAnimationFrame(follow);
  };
  video.addEventListener("play", follow);
  for (const name of ["seeked", "loadeddata", "durationchange"]) video.addEventListener(name, moved);
}

function say(text) {
  byId("video-note").textContent = text;
}

/** The view box is the picture and is fitted as `object-fit: contain` fits the picture: boxes land inside its letterbox. */
function draw() {
  const { videoWidth: width, videoHeight: height } = video;
  if (!width) return boxes.replaceChildren();
  boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const at = clues.map((clue, place) => ({ clue, number: place + 1 })).filter(({ clue }) => isNow(clue));
  boxes.replaceChildren(...at.flatMap(({ clue, number }) => [frame(clue, width, height), label(clue, number, width, height)]));
}

const isNow = ({ box }) => box && Math.abs(box.seconds - video.currentTime) <= NEAR;

function frame(clue, width, height) {
  const { x1, y1, x2, y2 } = clue.box;
  return shape("rect", clue, { x: x1 * width, y: y1 * height, width: (x2 - x1) * width, height: (y2 - y1) * height });
}

/** The clue's number, as large on any screen, inside the box's upper left corner. */
function label(clue, number, width, height) {
  const size = LABEL_PIXELS / (boxes.getScreenCTM()?.a || 1);
  const node = shape("text", clue, { x: clue.box.x1 * width + size / 4, y: clue.box.y1 * height + size, "font-size": size });
  node.textContent = number;
  return node;
}

function shape(tag, clue, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.classList.add(clue.kept ? "kept" : "dropped");
  node.classList.toggle("selected", clue === selected);
  return node;
}

video.addEventListener("error", () => {
  if (!address) return;
  show(byId("stage"), false);
  say("This browser cannot play this file, so clues cannot be shown in it. You can ask about it all the same.");
});
new ResizeObserver(draw).observe(video);
