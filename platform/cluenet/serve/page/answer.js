// An answer: probabilities as bars, reasoning with links to its clues, and what it took.
import { byId, fillTerms, make, percent, show } from "./dom.js";
import { isPlaced, select } from "./timeline.js";

const PHASES = {
  fetch: "Receiving the video",
  decode: "Decoding frames",
  wait: "Waiting for the model",
  watch: "Watching the clip",
  answer: "Answering",
  total: "In all",
};
const CACHES = { frames: "Decoded frames", clip: "Watched clip" };

/** Shows a VideoQAResponse to a question with these options; hides the old one for null. */
export function showAnswer(response, { question, options } = {}) {
  show(byId("result"), Boolean(response));
  if (!response) return;
  byId("asked").textContent = question;
  byId("answer").textContent = response.answer;
  byId("probabilities").replaceChildren(...(response.probabilities ?? []).map((p, place) => bar(options[place], p, place === response.index)));
  byId("chain").replaceChildren(...linked(response.chain, response.clues));
  fillTerms(byId("caches"), Object.entries(response.cached).map(([name, hit]) => [CACHES[name] ?? name, hit ? "found in the cache" : "made anew"]));
  fillTerms(byId("seconds"), Object.entries(response.seconds).map(([name, value]) => [PHASES[name] ?? name, `${value.toFixed(3)} s`]));
  fillTerms(byId("facts"), facts(response));
}

function bar(option, share, chosen) {
  const fill = make("span", { className: "fill" });
  fill.style.width = percent(share).replace(" ", "");
  return make(
    "li",
    { className: chosen ? "chosen" : "" },
    make("span", { className: "words", textContent: option }),
    make("span", { className: "share", textContent: `${chosen ? "✓ " : ""}${percent(share)}` }),
    make("span", { className: "meter", ariaHidden: "true" }, fill),
  );
}

/** The chain as text and buttons: a button wherever it says a clue word by word. */
function linked(chain, clues) {
  if (!chain) return ["The model wrote no reasoning."];
  const named = byWords(clues);
  if (!named.size) return [chain];
  const words = [...named.keys()].sort((a, b) => b.length - a.length).map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  const pieces = chain.split(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})(?![\\p{L}\\p{N}])`, "iu"));
  return pieces.map((piece, place) => (place % 2 ? link(piece, named.get(piece.toLowerCase())) : piece));
}

/** Clues that can be shown, by their text in lower case; a kept one before a dropped one that says the same. */
function byWords(clues) {
  const order = clues.filter((clue) => clue.text && isPlaced(clue)).sort((a, b) => a.kept - b.kept);
  return new Map(order.map((clue) => [clue.text.toLowerCase(), clue]));
}

function link(text, clue) {
  const button = make("button", { type: "button", className: "link", textContent: text });
  button.addEventListener("click", () => select(clue));
  return button;
}

function facts({ usage, video, model, fingerprint, frame_policy: policy, id }) {
  return [
    ...Object.entries(usage).map(([name, count]) => [sentence(name), String(count)]),
    ["Frames looked at", String(video.frame_seconds.length)],
    ["Reader", video.reader],
    ["Video (SHA-256)", video.sha256],
    ["Model", model],
    ["Fingerprint of the model", fingerprint],
    ["Fingerprint of the frame policy", policy],
    ["Request", id],
  ];
}

/** "visual_tokens" -> "Visual tokens". */
const sentence = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");
