// The open conversation: a tree of messages, and the branch of it that is shown. Every change is saved through the outbox.

import { getJson } from "./api.js";
import { save } from "./outbox.js";

const TITLE_CHARACTERS = 60;
const target = new EventTarget();
const nodes = new Map();
const children = new Map();
const live = new Map(); // messages that are being answered, of this conversation and of others: newer here than on the server

/** `id` is null until the first message is written: only then there is something to save. */
export const conversation = { id: null, title: "", settings: null, leaf: null };

/** Events: opened (another conversation), path (other messages are shown), node ({node}), title. */
export function on(event, listener) {
  target.addEventListener(event, (fired) => listener(fired.detail ?? {}));
}

const emit = (event, detail) => target.dispatchEvent(new CustomEvent(event, { detail }));

/** Works on pages without https too, where crypto.randomUUID does not exist. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

const address = (...parts) => "/api/conversations" + parts.map((part) => "/" + part).join("");

export const node = (id) => nodes.get(id);
export const leaf = () => nodes.get(conversation.leaf) ?? null;

/** The messages from the first one to this one. */
export function pathTo(id) {
  const found = [];
  for (let one = nodes.get(id); one; one = nodes.get(one.parent)) found.push(one);
  return found.reverse();
}

/** The messages that are shown, oldest first. */
export const path = () => pathTo(conversation.leaf);

/** Ids of a message and of the others that stand in its place, oldest first. */
export const branches = (id) => children.get(nodes.get(id)?.parent ?? null) ?? [];

function place(one) {
  if (nodes.has(one.id)) return;
  nodes.set(one.id, one);
  const beside = children.get(one.parent) ?? [];
  beside.push(one.id);
  children.set(one.parent, beside);
}

function newest(id) {
  let last = id;
  for (let below = children.get(last); below?.length; below = children.get(last)) last = below.at(-1);
  return last;
}

function clear(fields) {
  nodes.clear();
  children.clear();
  Object.assign(conversation, { id: null, title: "", settings: null, leaf: null }, fields);
}

/** An empty conversation. */
export function fresh(settings = null) {
  clear({ settings });
  emit("opened");
}

function take(found) {
  for (const one of found.nodes) {
    const known = nodes.get(one.id);
    if (live.has(one.id)) place(live.get(one.id));
    else if (known) Object.assign(known, { content: one.content, meta: one.meta ?? {} });
    else place({ ...one, parent: one.parent ?? null, meta: one.meta ?? {}, conversation: found.id });
  }
  for (const one of live.values()) if (one.conversation === found.id) place(one); // not yet saved
}

/** While a message is being written, what the server knows of it is older than what is here. */
export const hold = (one) => live.set(one.id, one);
export const release = (one) => live.delete(one.id);

/** Opens a saved conversation. Throws Problem. */
export async function open(id) {
  const found = await getJson(address(id));
  clear({ id: found.id, title: found.title, settings: found.settings ?? null });
  take(found);
  conversation.leaf = nodes.has(found.leaf) ? found.leaf : found.nodes.length ? newest(found.nodes[0].id) : null;
  emit("opened");
}

/** Takes over what another tab did to the open conversation; what is shown stays, unless it only went on. */
export async function refresh() {
  const { id } = conversation;
  const found = await getJson(address(id));
  if (conversation.id !== id) return;
  const before = path().map((one) => one.content).join("\0");
  const followed = leaf();
  take(found);
  if (found.title !== conversation.title) setTitle(found.title, false);
  if (followed && newest(followed.id) !== followed.id) conversation.leaf = newest(followed.id);
  else if (!followed && nodes.has(found.leaf)) conversation.leaf = found.leaf;
  if (path().map((one) => one.content).join("\0") !== before) emit("path");
}

export function titleFrom(text) {
  const line = text.trim().split("\n")[0];
  return line.length > TITLE_CHARACTERS ? line.slice(0, TITLE_CHARACTERS - 1).trimEnd() + "…" : line;
}

export function setTitle(title, saved = true) {
  conversation.title = title;
  if (saved && conversation.id) save("PATCH", address(conversation.id), { title });
  emit("title");
}

export function saveSettings(settings) {
  conversation.settings = settings;
  if (conversation.id) save("PATCH", address(conversation.id), { settings });
}

let settingsNow = () => null;

/** `settings()` is what a conversation begins with. */
export function beginWith(settings) {
  settingsNow = settings;
}

function begin(text) {
  conversation.id = uuid();
  conversation.settings ??= settingsNow();
  conversation.title = titleFrom(text);
  save("POST", address(), { id: conversation.id, title: conversation.title, settings: conversation.settings });
  emit("title");
}

/** Everything of a message but what only this page uses. */
const stored = ({ id, parent, role, content, model, meta }) => ({ id, parent, role, content, model: model ?? null, meta: meta ?? {} });

/** A message after `parent` (null: the first), shown at once. `saved: false`: kept back until saveNode. */
export function addNode({ id = uuid(), parent, role, content, model = null, meta = {} }, { saved = true } = {}) {
  if (!conversation.id) begin(content);
  const one = { id, parent: parent ?? null, role, content, model, meta, conversation: conversation.id, unsaved: true };
  place(one);
  conversation.leaf = id;
  if (saved) saveNode(one);
  emit("path");
  return one;
}

/** Saves a message as it is now, whichever conversation is open meanwhile. */
export function saveNode(one, fields = ["content", "meta"]) {
  if (one.unsaved) {
    one.unsaved = false;
    save("POST", address(one.conversation, "nodes"), stored(one));
    save("PATCH", address(one.conversation), { leaf: one.id });
  } else {
    save("PATCH", address(one.conversation, "nodes", one.id), Object.fromEntries(fields.map((name) => [name, one[name]])));
  }
}

/** Changes a message; whoever shows it is told. */
export function change(one, { content = one.content, meta = {} }, { saved = false } = {}) {
  one.content = content;
  one.meta = { ...one.meta, ...meta };
  if (saved) saveNode(one);
  if (nodes.get(one.id) === one) emit("node", { node: one });
}

export const updateNode = (id, fields, { save: saved = true } = {}) => change(nodes.get(id), fields, { saved });

/** Takes back a message that was never saved. */
export function dropNode(one) {
  if (nodes.get(one.id) !== one) return;
  nodes.delete(one.id);
  const beside = (children.get(one.parent) ?? []).filter((id) => id !== one.id);
  children.set(one.parent, beside);
  if (conversation.leaf === one.id) conversation.leaf = beside.length ? newest(beside.at(-1)) : one.parent;
  emit("path");
}

/** Shows the branch that a message is on, down to its newest message. */
export function showBranch(id) {
  conversation.leaf = newest(id);
  save("PATCH", address(conversation.id), { leaf: conversation.leaf });
  emit("path");
}
