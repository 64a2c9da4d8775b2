// The server's side: what is sent to /v1/videoqa, and what can come back.

/** What an HTTP header can carry. */
const KEY = /^[\x21-\x7e]*$/;

/** The server, or the way to it, refused. `status` is 0 where there was no reply; `retryAfter` is in seconds. */
export class RequestError extends Error {
  constructor(message, { status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, param, retryAfter });
  }
}

/** `GET /health`, which needs no key: {status, model, version}; null where it cannot be had. */
export async function health() {
  try {
    const reply = await fetch("health");
    return reply.ok ? await reply.json() : null;
  } catch {
    return null;
  }
}

/**
 * Sends a question; the promise gives a VideoQAResponse. Rejects with RequestError, or the signal's reason once aborted.
 * An XMLHttpRequest, as fetch does not tell how much of an upload is sent. `onSent` gets the share.
 */
export function ask(wish, { key, signal, onSent }) {
  return new Promise((resolve, reject) => {
    if (!KEY.test(key)) throw new RequestError("The key has a character that no key has.", { param: "key" });
    const request = new XMLHttpRequest();
    request.open("POST", "v1/videoqa");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.onprogress = (event) => onSent(event.loaded / event.total);
    request.onload = () => settle(request, resolve, reject);
    request.onerror = () => reject(new RequestError("The server cannot be reached, or it broke off. Is it running?"));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form(wish));
  });
}

/** The multipart body. Fields that nobody filled in are left out. */
function form({ video, question, options, start, end, utilities }) {
  const body = new FormData();
  body.append("question", question);
  options.forEach((option) => body.append("options", option));
  if (start !== "") body.append("start_seconds", start);
  if (end !== "") body.append("end_seconds", end);
  body.append("explain", "true");
  body.append("utilities", String(utilities));
  body.append("video", video);
  return body;
}

function settle(request, resolve, reject) {
  const body = parsed(request.responseText);
  if (request.status === 200 && body) resolve(body);
  else reject(refusal(request, body));
}

function refusal(request, body) {
  const { status } = request;
  const retryAfter = Number(request.getResponseHeader("Retry-After")) || null;
  const error = body?.error;
  if (!error) return new RequestError("The reply is not one of this server's. Is a proxy in between?", { status });
  return new RequestError(error.message, { status, param: error.param, retryAfter });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
