// Everything that goes over the network: JSON calls, the stream of an answer, and failures in words for people.

const SILENT_MS = 45_000; // the server sends a comment every few seconds, so a longer silence means that it is gone

/** A failure. `kind`: loading | draining | failed | busy | full | gone | key | missing | refused | broken; `said`: words for people. */
export class Problem extends Error {
  constructor(kind, said, { status = 0, code = null, retryAfter = null } = {}) {
    super(said);
    Object.assign(this, { kind, said, status, code, retryAfter });
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return ["loading", "busy", "gone", "draining"].includes(this.kind);
  }
}

export const gone = () => new Problem("gone", "The server cannot be reached. What you wrote is kept.");

function kindOf(status, error) {
  if (status === 401) return "key";
  if (status === 404) return "missing";
  if (status === 429) return "busy";
  if (status === 503) return ["draining", "failed"].includes(error.code) ? error.code : "loading";
  if (status === 502 || status === 504) return "gone";
  if (error.code === "context_length_exceeded" || (status === 400 && /context/i.test(error.message ?? ""))) return "full";
  return status >= 500 ? "broken" : "refused";
}

const WORDS = {
  loading: () => "The model is still being loaded. Your message is sent as soon as it is ready.",
  draining: () => "The server is being shut down or restarted. What you wrote is kept.",
  failed: (said) => `The model could not be loaded: ${said}`,
  busy: () => "The server is busy.",
  full: (said) => `The context is full: ${said}`,
  key: () => "You are not signed in any more. Sign in with your key; what you wrote is kept.",
  broken: (said) => `Something failed on the server: ${said}`,
};

export function problemFrom(status, body, retryAfter = null) {
  const error = (body && typeof body === "object" && body.error) || {};
  const message = error.message || `the server answered with status ${status}`;
  const kind = kindOf(status, error);
  if (error.code === "model_not_found") return new Problem(kind, `${message}. Choose another one in the head of the page.`, { status, code: error.code });
  return new Problem(kind, (WORDS[kind] ?? ((said) => said))(message), { status, code: error.code ?? null, retryAfter });
}

async function request(method, path, body, { signal, keepalive = false, text = false } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const sent = body === undefined || text ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, headers, body: sent, signal, keepalive, credentials: "same-origin" });
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
  if (response.ok) return response;
  const after = Number(response.headers.get("Retry-After"));
  throw problemFrom(response.status, await response.json().catch(() => null), Number.isFinite(after) && after > 0 ? after : null);
}

/** What a JSON call answers, or null where the answer is empty. Throws Problem; an AbortError passes through. */
export async function sendJson(method, path, body, options) {
  const response = await request(method, path, body, options);
  const text = await response.text().catch(() => { throw gone(); });
  return text ? JSON.parse(text) : null;
}

export const getJson = (path, options) => sendJson("GET", path, undefined, options);
export const get = getJson;
export const post = (path, body, options) => sendJson("POST", path, body, options);
export const getBlob = async (path) => (await request("GET", path)).blob();

/** "loading", "ready", "draining" or "failed", and "gone" when nobody answers. */
export async function health() {
  try {
    const response = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout?.(10_000) });
    return (await response.json()).status ?? "gone";
  } catch {
    return "gone";
  }
}

/** Data of server-sent events. A silence that is too long, and an end without `[DONE]`, are failures. */
async function* events(reader) {
  const decoder = new TextDecoder();
  let kept = "";
  for (;;) {
    let timer;
    const silent = new Promise((_, reject) => { timer = setTimeout(() => reject(gone()), SILENT_MS); });
    const { done, value } = await Promise.race([reader.read(), silent]).finally(() => clearTimeout(timer));
    if (done) throw gone();
    const lines = (kept + decoder.decode(value, { stream: true })).split("\n");
    kept = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** Chunks of an answer as OpenAI's API streams them. Throws Problem; ends with an AbortError when `signal` stops it. */
export async function* streamChat(body, { signal } = {}) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("POST", "/v1/chat/completions", asked, { signal });
  const reader = response.body.getReader();
  try {
    for await (const chunk of events(reader)) {
      if (chunk.error) throw problemFrom(chunk.error.status ?? 500, chunk);
      yield chunk;
    }
  } catch (error) {
    if (signal?.aborted || error.name === "AbortError") throw new DOMException("stopped", "AbortError");
    throw error instanceof Problem ? error : gone();
  } finally {
    reader.cancel().catch(() => {}); // closes the connection, which ends the work on the server
  }
}
