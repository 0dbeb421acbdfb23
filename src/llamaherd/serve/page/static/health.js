// Whether the server can answer: asked while something is wrong, and told in words.

import { health } from "./api.js";

const POLL_MS = 1500;
const listeners = new Set();
let state = "ready";
let polling = null;

/** `listener(state)` whenever it changes: loading, ready, draining, failed or gone. */
export const onHealth = (listener) => listeners.add(listener);
export const present = () => state;

async function ask() {
  const found = await health();
  if (found !== state) {
    state = found;
    listeners.forEach((listener) => listener(state));
  }
  return state;
}

async function poll() {
  while ((await ask()) !== "ready") await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

/** Resolves when the server is ready. */
export function untilReady() {
  polling ??= poll().finally(() => { polling = null; });
  return polling;
}
