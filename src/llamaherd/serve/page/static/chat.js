// What people do with a conversation: ask, stop, ask again, change a message, go on with an answer that was cut.

import { Problem, streamChat } from "./api.js";
import { untilReady } from "./health.js";
import { flush } from "./outbox.js";
import { overflow } from "./prompt.js";
import { current, fields, problem as settingsProblem } from "./settings.js";
import { addNode, change, conversation, dropNode, hold, leaf, node, pathTo, release, saveNode } from "./state.js";
import { collect, kept, tokensOf } from "./tokens.js";

const SAVE_MS = 3000; // an answer that is being written is saved so often, for a tab that crashes
const MOST_TRIES = 30;

const streams = new Map();
const target = new EventTarget();

/** Events: stream (an answer begins, ends or waits), finished ({node}), problem ({problem}: null when it is over). */
export function onChat(event, listener) {
  target.addEventListener(event, (fired) => listener(fired.detail ?? {}));
}

const emit = (event, detail) => target.dispatchEvent(new CustomEvent(event, { detail }));

/** The answer that is being written in the open conversation, or null: {node, waits}. */
export const answering = () => streams.get(conversation.id) ?? null;
const LOCK = "llamaherd.answer.";
const elsewhere = new Set();

/** Whether another tab is writing this answer. */
export const isElsewhere = (one) => elsewhere.has(one.id);

/** Asks whether another tab writes what looks interrupted; `ended()` once it does not any more. Https and loopback alone have locks. */
export async function watchElsewhere(ended) {
  const one = leaf();
  if (!navigator.locks || one?.meta.finish !== "streaming" || isStreaming(one) || isElsewhere(one)) return;
  const name = LOCK + one.id;
  if (!(await navigator.locks.query()).held.some((lock) => lock.name === name)) return;
  elsewhere.add(one.id);
  change(one, {});
  await navigator.locks.request(name, () => elsewhere.delete(one.id)); // given when the other tab has ended, in whatever way
  change(one, {});
  ended();
}

export const isStreaming = (one) => streams.get(one.conversation)?.node === one;

/** The body of a request for the next answer, with `draft` as a further message of the user. */
export function bodyFor(messages, { draft = null, continued = false } = {}) {
  const { system } = current();
  const said = messages.map(({ role, content }) => ({ role, content }));
  if (draft !== null) said.push({ role: "user", content: draft });
  if (system?.trim()) said.unshift({ role: "system", content: system });
  return { ...fields(), ...overflow(), messages: said, ...(continued ? { continue_final_message: true } : {}) };
}

/** Writes a message and has it answered. A last message that got no answer is kept as another version. */
export function send(text) {
  const last = leaf();
  const parent = last?.role === "user" ? last.parent : last?.id ?? null;
  addNode({ parent, role: "user", content: text });
  return answer(leaf());
}

/** Another answer beside this one, or the first one to a message that has none. */
export function regenerate(id) {
  const one = node(id);
  return answer(one.role === "assistant" ? node(one.parent) : one);
}

/** The changed message beside the old one; a user's is answered. */
export function edit(id, text) {
  const { parent, role, model } = node(id);
  addNode({ parent, role, content: text, model, meta: role === "assistant" ? { edited: true } : {} });
  return role === "user" ? answer(leaf()) : Promise.resolve();
}

/** Goes on with an answer where it was cut. */
export const continueAnswer = (id) => answer(node(id), node(id));

/** Ends the answer that is being written; what came stays. */
export const stop = () => answering()?.abort.abort();

/** Ends every answer that is being written, in other conversations too; resolves when what came is on its way to be saved. */
export async function stopAll() {
  for (const { abort } of streams.values()) abort.abort();
  while (streams.size) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Saves what has come so far: the page may be closing. */
export function saveAll() {
  for (const { node: one } of streams.values()) {
    if (one?.content) {
      change(one, { meta: { finish: "interrupted" } });
      saveNode(one);
    }
  }
}

const aborted = (signal) => new Promise((_, reject) => {
  signal.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")), { once: true });
});

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("stopped", "AbortError")); }, { once: true });
});

/** Tries until the server has taken the request. Throws nothing that the server or the network did. */
async function answer(question, continued = null) {
  if (answering()) return;
  const wrong = settingsProblem();
  if (wrong) return emit("problem", { problem: new Problem("refused", wrong) });
  const body = bodyFor(pathTo(question.id), { continued: Boolean(continued) });
  const one = continued ?? addNode({ parent: question.id, role: "assistant", content: "", model: body.model }, { saved: false });
  const tokens = one.content ? (tokensOf(one.meta)?.slice() ?? null) : []; // of an answer whose beginning has none, none are shown
  const stream = { node: one, before: one.content, tokens, abort: new AbortController(), waits: null };
  streams.set(one.conversation, stream);
  navigator.locks?.request(LOCK + one.id, () => new Promise((resolve) => { stream.end = resolve; if (stream.ended) resolve(); }));
  hold(one);
  emit("problem", { problem: null });
  emit("stream");
  try {
    for (let tries = 1; !(await attempt(stream, body, tries)); tries += 1);
  } finally {
    release(one);
    streams.delete(one.conversation);
    flush().finally(() => { stream.ended = true; stream.end?.(); }); // other tabs read it once it is saved
    emit("stream");
  }
}

/** Whether the answer has ended, one way or another; false: to be asked for again. */
async function attempt(stream, body, tries) {
  const { signal } = stream.abort;
  try {
    await receive(stream, body);
    return finish(stream, stream.reason ?? "stop");
  } catch (error) {
    if (error.name === "AbortError") return finish(stream, "stopped");
    if (!(error instanceof Problem)) throw error;
    const came = stream.node.content !== stream.before;
    if (came || !error.passes || (error.kind === "busy" && tries >= MOST_TRIES)) return finish(stream, "interrupted", error);
    stream.waits = error;
    emit("stream");
  }
  try {
    const time = stream.waits.kind === "busy" ? pause((stream.waits.retryAfter ?? 1) * 1000, signal) : untilReady();
    await Promise.race([time, aborted(signal)]);
  } catch {
    return finish(stream, "stopped");
  }
  stream.waits = null;
  emit("stream");
  return false;
}

async function receive(stream, body) {
  const { node: one, tokens } = stream;
  let saved = Date.now();
  for await (const chunk of streamChat(body, { signal: stream.abort.signal })) {
    if (chunk.usage) stream.usage = chunk.usage;
    if (chunk.llamaherd?.dropped_turns) stream.dropped = chunk.llamaherd.dropped_turns;
    const [choice] = chunk.choices ?? [];
    if (!choice) continue;
    if (tokens && choice.logprobs?.content) collect(tokens, choice.logprobs.content);
    if (choice.finish_reason) stream.reason = choice.finish_reason;
    const text = choice.delta?.content;
    if (!text) continue;
    change(one, { content: one.content + text, meta: { finish: "streaming" } });
    if (one.unsaved || Date.now() - saved > SAVE_MS) {
      saved = Date.now();
      saveNode(one);
    }
  }
}

/** Notes how an answer ended and saves it; one that never began is taken back. */
function finish(stream, reason, problem = null) {
  const one = stream.node;
  release(one);
  streams.delete(one.conversation); // before the message is shown for the last time, as one that is no longer being written
  if (one.unsaved && ["stopped", "interrupted"].includes(reason)) dropNode(one);
  else {
    const tokens = { tokens: undefined, ...kept(stream.tokens) };
    const usage = stream.usage ? { usage: stream.usage } : {};
    const dropped = stream.dropped ? { dropped_turns: stream.dropped } : {};
    change(one, { meta: { finish: reason, ...tokens, ...usage, ...dropped } }, { saved: true });
    if (!problem) emit("finished", { node: one });
  }
  if (problem) emit("problem", { problem });
  return true;
}
