// Changes to saved conversations on their way to the server: in order, kept in this browser until they have arrived.
// Every change can be sent twice without harm, so what another tab left behind when it closed is simply sent again.

import { Problem, sendJson } from "./api.js";

const PREFIX = "llamaherd.outbox.";
const STALE_MS = 15_000;
const KEEPALIVE_CHARACTERS = 20_000; // browsers let a closing page send 64 KiB at most
const own = PREFIX + Math.random().toString(36).slice(2);

let who = null; // whose changes these are: those of others wait until they come back
let waiting = [];
let sending = null;
let retry = 0;
const listeners = new Set();
const others = "BroadcastChannel" in window ? new BroadcastChannel("llamaherd") : null;

/** `listener(path)` when another tab has saved something. */
export function onOthers(listener) {
  if (others) others.onmessage = ({ data }) => listener(String(data));
}

export const tellOthers = (path) => others?.postMessage(path);

/** `listener({pending, problem})` when something is saved, cannot be saved for now, or is refused. */
export const onSaving = (listener) => listeners.add(listener);

const tell = (problem = null) => listeners.forEach((listener) => listener({ pending: waiting.length, problem }));

function keep(at = Date.now()) {
  try {
    if (waiting.length) localStorage.setItem(own, JSON.stringify({ at, who, waiting }));
    else localStorage.removeItem(own);
  } catch {
    // the browser's store is full or shut: the changes are still held by this page
  }
}

/** Says whose the changes of this page are: kept so, and sent for nobody else. */
export function belongTo(name) {
  who = name;
  keep();
}

/** Queues a change; of several that set the same fields of the same thing only the last is sent. */
export function save(method, path, body) {
  const last = waiting.at(-1);
  const again = method === "PATCH" && last && last !== sending && last.method === method && last.path === path;
  if (again) last.body = { ...last.body, ...body };
  else waiting.push({ method, path, body });
  keep();
  flush();
}

let running = null;

/** Sends what waits; resolves when nothing is left or when sending has to wait. */
export function flush() {
  running ??= drain().finally(() => { running = null; });
  return running;
}

async function drain() {
  clearTimeout(retry);
  while (waiting.length) {
    sending = waiting[0];
    try {
      await sendJson(sending.method, sending.path, sending.body);
      tellOthers(sending.path + (sending.method === "POST" ? "/" + sending.body.id : ""));
    } catch (error) {
      if (!(error instanceof Problem) || error.passes || error.kind === "key" || error.kind === "broken") {
        sending = null;
        keep();
        tell(error);
        retry = setTimeout(flush, (error.retryAfter ?? (error.kind === "key" ? 15 : 2)) * 1000);
        return;
      }
      if (error.kind !== "missing") tell(error); // what was deleted meanwhile needs no saving
    }
    sending = null;
    waiting.shift();
    keep();
  }
  tell();
}

export const pending = () => waiting.length;

/** While the page closes: what is small enough leaves at once, and everything stays kept for the next visit. */
export function flushClosing() {
  keep(0); // whichever tab is opened next need not wait to be sure that this one is gone
  for (const { method, path, body } of waiting) {
    const text = JSON.stringify(body ?? {});
    if (text.length < KEEPALIVE_CHARACTERS) sendJson(method, path, body, { keepalive: true }).catch(() => {});
  }
}

navigator.locks?.request(own, () => new Promise(() => {})); // held as long as this tab lives

/** Whether the tab that keeps these changes is still there. Only https and loopback have locks; elsewhere a silence tells. */
async function lives(key, at) {
  if (!navigator.locks) return Date.now() - at < STALE_MS;
  return (await navigator.locks.query()).held.some(({ name }) => name === key);
}

/** Takes over what closed tabs of the same person could not send. */
export async function adopt() {
  for (const key of Object.keys(localStorage).filter((name) => name.startsWith(PREFIX) && name !== own)) {
    try {
      const left = JSON.parse(localStorage.getItem(key));
      if ((left.who ?? who) !== who || (await lives(key, left.at))) continue;
      waiting.push(...left.waiting);
    } catch {
      // what cannot be read cannot be sent
    }
    localStorage.removeItem(key);
  }
  keep();
  await flush();
}

setInterval(() => { if (waiting.length) keep(); }, STALE_MS / 3);
setTimeout(adopt, STALE_MS + 1000);
