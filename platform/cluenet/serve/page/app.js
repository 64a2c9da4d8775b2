// The page: takes a video and a question, asks, and hands the answer to those that show it.
import { showAnswer } from "./answer.js";
import { RequestError, ask, health } from "./api.js";
import { byId, show } from "./dom.js";
import { options } from "./options.js";
import { load, showBoxesOf } from "./player.js";
import { showClues } from "./timeline.js";

/** Fields of a request and what stands for them on the page. */
const FIELDS = { video: "video", question: "question", start_seconds: "start", end_seconds: "end", key: "key" };
let running = null;

// ------------------------------------------------------------------------------------------------ the video

/** Another video: what was answered about the one before it does not belong to it. */
function videoChosen() {
  const [file] = byId("video").files;
  running?.abort();
  present(null);
  load(file);
}

/** Files only: a text may be dropped into a field as ever. */
const hasFiles = (event) => event.dataTransfer.types.includes("Files");

function dropped(event) {
  if (!hasFiles(event)) return;
  event.preventDefault();
  byId("drop").classList.remove("over");
  byId("video").files = event.dataTransfer.files;
  videoChosen();
}

function draggedOver(event) {
  if (!hasFiles(event)) return;
  event.preventDefault(); // else the browser would leave the page for the file
  byId("drop").classList.add("over");
}

// ------------------------------------------------------------------------------------------------ the question

function wished() {
  const value = (id) => byId(id).value.trim();
  return {
    video: byId("video").files[0],
    question: value("question"),
    options: options(),
    start: value("start"),
    end: value("end"),
    utilities: byId("utilities").checked,
  };
}

async function submitted(event) {
  event.preventDefault();
  if (running) return;
  const wish = wished();
  tell(null);
  byId("said").textContent = "";
  if (!wish.video) return tell(new RequestError("Choose a video first.", { param: "video" }));
  if (!wish.question) return tell(new RequestError("Type a question first.", { param: "question" }));
  present(null);
  await answered(wish);
}

async function answered(wish) {
  const stop = wait();
  try {
    present(await ask(wish, { key: byId("key").value.trim(), signal: running.signal, onSent: sent }), wish);
    byId("answer-heading").focus();
  } catch (error) {
    if (error instanceof RequestError) tell(error);
    else if (error.name === "AbortError") byId("said").textContent = "Cancelled.";
    else throw error;
  } finally {
    stop();
  }
}

/** Shows that an answer is awaited, and for how long; returns what ends that. */
function wait() {
  running = new AbortController();
  busy(true);
  sent(0);
  const started = performance.now();
  const tick = () => (byId("clock").textContent = `${Math.round((performance.now() - started) / 1000)} s`);
  const timer = setInterval(tick, 1000);
  tick();
  return () => {
    clearInterval(timer);
    running = null;
    busy(false);
  };
}

function busy(is) {
  const hadFocus = document.activeElement === byId("cancel");
  for (const id of ["waiting", "cancel"]) show(byId(id), is);
  byId("submit").setAttribute("aria-disabled", String(is)); // stays in the order of focus
  if (hadFocus && !is) byId("submit").focus();
}

function sent(share) {
  const bar = byId("progress");
  if (share < 1) bar.value = share;
  else bar.removeAttribute("value");
  byId("progress-text").textContent = share < 1 ? "Sending the video." : "The model is at work.";
}

// ------------------------------------------------------------------------------------------------ the reply

function present(response, wish) {
  showAnswer(response, wish);
  showClues(response);
  showBoxesOf(response?.clues ?? []);
}

/** Says what is wrong, and goes to the field where that can be mended. */
function tell(error) {
  show(byId("error"), Boolean(error));
  for (const id of Object.values(FIELDS)) byId(id).removeAttribute("aria-invalid");
  if (!error) return;
  const status = error.status ? `${error.status}: ` : "";
  const again = error.retryAfter ? ` Ask again in ${error.retryAfter} s.` : "";
  byId("error").textContent = `${status}${error.message}${again}`;
  const field = byId(error.status === 401 ? "key" : FIELDS[error.param]);
  if (field) point(field);
}

function point(field) {
  if (byId("more").contains(field)) byId("more").open = true;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

async function greet() {
  const server = await health();
  byId("model").textContent = server ? `This server runs ${server.model}.` : "";
}

byId("video").addEventListener("change", videoChosen);
byId("ask").addEventListener("submit", submitted);
byId("cancel").addEventListener("click", () => running?.abort());
document.addEventListener("drop", dropped);
document.addEventListener("dragover", draggedOver);
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
greet();
