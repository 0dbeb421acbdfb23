// Markdown, code and formulas, rendered by the server and put in piece by piece, so that no frame takes long.
//
// A text is cut where its parts render alike apart and together. Each piece stands as plain text until its HTML comes; what came
// stays, and of a text that grows only the last piece is asked for anew.

import { post } from "./api.js";

const PIECE_CHARACTERS = 3000;
const BATCH_CHARACTERS = 48000;
const BATCH_TEXTS = 16;
const BUDGET_MS = 8;
const PAUSE_MS = 100;
const AFTER_FAILURE_MS = 2000;
const TRIES = 3;
const REMEMBERED = 400;

const FENCE = /^\s*(?:(?:[-+*]|\d{1,9}[.)])\s+)?(`{3,}|~{3,})(.*)$/;
const ITEM = /^(?:[-+*]|\d{1,9}[.)])(?:\s|$)/;
const RULE_OF_TABLE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const DEFINITION = /^\[[^\]\n]+\]:\s/m;

const states = new WeakMap();
const remembered = new Map();
const waiting = new Set();
let working = false;
let failedUntil = 0;

/** Shows `text` in `element`. Called again with a longer text it goes on from what stands there; any other text starts anew. */
export function renderInto(element, text, { streaming = false } = {}) {
  let state = states.get(element);
  if (!state || !text.startsWith(state.text)) {
    if (state) state.pieces.forEach((piece) => waiting.delete(piece));
    element.replaceChildren();
    state = { element, text: "", parts: [], cut: 0, before: 0, pieces: [], fitting: false, stale: false };
    states.set(element, state);
  } else if (state.pieces[0] && state.pieces[0].box.parentNode !== element) {
    element.replaceChildren(...state.pieces.map((piece) => piece.box)); // something else was shown in between
  }
  state.streaming = streaming;
  extend(state, text);
  state.stale = true;
  if (!state.fitting) fit(state);
}

/** Resolves when everything asked for so far stands in `element`, rendered or, where that failed, as plain text. */
export async function settled(element) {
  const state = states.get(element);
  while (state && (state.fitting || state.pieces.some((piece) => waiting.has(piece) || piece.asked))) await breath();
}

// --- cutting ---------------------------------------------------------------------------------------------------------------------

/** Cuts what is new of `text`, short sections together; all parts but the last stay as they were. */
function extend(state, text) {
  state.text = text;
  if (DEFINITION.test(text) && text.length <= BATCH_CHARACTERS) {
    state.parts = [{ source: text }];
    state.cut = state.before = 0;
    return;
  }
  const kept = state.parts.slice(0, state.before);
  const starts = [...sectionStarts(text, state.cut), text.length];
  for (let index = 0; index + 1 < starts.length; ) {
    const start = starts[index++];
    while (index + 1 < starts.length && starts[index + 1] - start <= PIECE_CHARACTERS) index++;
    [state.cut, state.before] = [start, kept.length];
    kept.push(...pieces(text.slice(start, starts[index])));
  }
  const old = state.parts;
  state.parts = kept.map((part, index) => (old[index]?.source === part.source ? Object.assign(old[index], part) : part));
}

/** Where sections start from `from` on: after a blank line outside of code and formulas, before what belongs to no list. */
function sectionStarts(text, from) {
  const starts = [from];
  let fence = null;
  let formula = null;
  let blank = false;
  for (let at = from; at < text.length; ) {
    const end = text.indexOf("\n", at);
    const line = text.slice(at, end < 0 ? text.length : end);
    const opening = FENCE.exec(line);
    const complete = end >= 0 || line.length > 12;
    if (blank && !fence && !formula && complete && /^\S/.test(line) && !ITEM.test(line) && at > from) starts.push(at);
    if (fence) {
      if (opening && opening[1][0] === fence[0] && opening[1].length >= fence.length && !opening[2].trim()) fence = null;
    } else if (formula) {
      if (line.includes(formula)) formula = null;
    } else if (opening) fence = opening[1];
    else if (/^\s*\$\$/.test(line) && line.trim().indexOf("$$", 2) < 0) formula = "$$";
    else if (/^\s*\\\[/.test(line) && !line.includes("\\]")) formula = "\\]";
    blank = !line.trim();
    if (end < 0) break;
    at = end + 1;
  }
  return starts;
}

/** A section, cut further where it is too long for one frame: code stays code, and every part of a table has its head. */
function pieces(section) {
  if (section.length <= PIECE_CHARACTERS) return [{ source: section }];
  const lines = section.split("\n");
  const opening = FENCE.exec(lines[0]);
  if (opening) {
    const closed = lines.findLastIndex((line) => line.trim().startsWith(opening[1]) && !line.trim().slice(opening[1].length).trim());
    const body = closed > 0 ? lines.slice(1, closed) : lines.slice(1);
    const rest = closed > 0 ? lines.slice(closed + 1).join("\n") : "";
    const whole = { text: body.join("\n") };
    const parts = groups(body).map((group) => ({ source: `${lines[0]}\n${group}\n${opening[1]}`, whole }));
    return rest.trim() ? [...parts, ...pieces(rest)] : parts;
  }
  if (lines.length > 2 && lines[0].includes("|") && RULE_OF_TABLE.test(lines[1])) {
    return groups(lines.slice(2)).map((group) => ({ source: `${lines[0]}\n${lines[1]}\n${group}`, whole: {} }));
  }
  return groups(lines).map((group) => ({ source: group }));
}

function groups(lines) {
  const found = [];
  let group = "";
  for (let line of lines) {
    while (line.length > PIECE_CHARACTERS) {
      const space = line.lastIndexOf(" ", PIECE_CHARACTERS);
      const cut = space > PIECE_CHARACTERS / 2 ? space + 1 : PIECE_CHARACTERS;
      if (group) found.push(group);
      group = "";
      found.push(line.slice(0, cut));
      line = line.slice(cut);
    }
    if (group && group.length + line.length > PIECE_CHARACTERS) {
      found.push(group);
      group = "";
    }
    group = group ? `${group}\n${line}` : line;
  }
  if (group.trim() || !found.length) found.push(group);
  return found;
}

// --- putting in ------------------------------------------------------------------------------------------------------------------

/** Brings the pieces in the page in line with the parts, a few milliseconds at a time. */
async function fit(state) {
  state.fitting = true;
  let since = performance.now();
  while (state.stale) {
    state.stale = false;
    for (let index = 0; index < state.parts.length && states.get(state.element) === state; index++) {
      renew(state.pieces[index] ?? addPiece(state), state.parts[index]);
      if (performance.now() - since > BUDGET_MS) {
        work();
        await breath();
        since = performance.now();
      }
    }
  }
  for (const piece of state.pieces.splice(state.parts.length)) {
    waiting.delete(piece);
    piece.box.remove();
  }
  state.fitting = false;
  work();
}

function renew(piece, part) {
  piece.whole = part.whole;
  if (piece.source === part.source) return;
  Object.assign(piece, { source: part.source, failures: 0 });
  if (!piece.rendered) plain(piece);
  waiting.delete(piece); // so that it is the newest
  if (!part.source.trim()) return plain(piece); // an answer that has not begun
  waiting.add(piece);
}

function plain(piece) {
  piece.box.className = "md plain";
  piece.box.textContent = piece.source;
  Object.assign(piece, { rendered: false, blocks: [] });
}

function addPiece(state) {
  const box = document.createElement("div");
  box.dir = "auto";
  state.element.append(box);
  const piece = { state, box, source: null, blocks: [], rendered: false, asked: false, failures: 0 };
  state.pieces.push(piece);
  return piece;
}

/** Asks for what waits, the newest first, one request at a time. */
async function work() {
  if (working) return;
  working = true;
  while (waiting.size) {
    await breath();
    const wait = failedUntil - Date.now();
    if (wait > 0) await pause(wait);
    const batch = nextBatch();
    const started = performance.now();
    const asked = batch.some((piece) => !remembered.has(piece.source));
    const found = await htmlOf(batch.map((piece) => piece.source));
    let since = performance.now();
    for (const [index, piece] of batch.entries()) {
      piece.asked = false;
      try {
        if (found[index]) show(piece, found[index]);
        else failed(piece);
      } catch (error) {
        plain(piece); // one text must never hold up the others
        console.error(error);
      }
      if (performance.now() - since > BUDGET_MS) {
        await breath();
        since = performance.now();
      }
    }
    if (asked && batch.some((piece) => piece.state.streaming)) await pause(Math.max(PAUSE_MS, 2 * (performance.now() - started)));
  }
  working = false;
}

/** Plain text in the place of what cannot be rendered; asked for again a few times, in case that the server is only busy. */
function failed(piece) {
  plain(piece);
  piece.failures += 1;
  if (piece.failures < TRIES && Date.now() < failedUntil) waiting.add(piece);
}

function nextBatch() {
  const batch = [];
  let characters = 0;
  for (const piece of [...waiting].reverse()) {
    if (batch.length && (batch.length >= BATCH_TEXTS || characters + piece.source.length > BATCH_CHARACTERS)) break;
    characters += piece.source.length;
    piece.asked = true;
    waiting.delete(piece);
    batch.push(piece);
  }
  return batch;
}

/** The blocks of each text, or null where the server has none; a text that it refuses spoils no other. */
async function htmlOf(texts) {
  const missing = [...new Set(texts.filter((text) => text.trim() && !remembered.has(text)))];
  try {
    if (missing.length) {
      const { html } = await post("/api/render", { texts: missing });
      missing.forEach((text, index) => remembered.set(text, html[index]));
    }
  } catch (error) {
    if (error.status >= 400 && error.status < 429 && error.status !== 401 && missing.length > 1) {
      return (await Promise.all(texts.map((text) => htmlOf([text])))).flat();
    }
    if (!(error.status >= 400 && error.status < 429)) failedUntil = Date.now() + AFTER_FAILURE_MS;
  }
  const found = texts.map((text) => (text.trim() ? (remembered.get(text) ?? null) : []));
  for (const text of remembered.keys()) {
    if (remembered.size <= REMEMBERED) break;
    remembered.delete(text);
  }
  return found;
}

/** Puts HTML in the place of plain text; blocks that are as they were stay. */
function show(piece, html) {
  const same = piece.blocks.findIndex((block, index) => block.html !== html[index]);
  const kept = same < 0 ? Math.min(piece.blocks.length, html.length) : same;
  if (!piece.rendered) piece.box.replaceChildren();
  piece.blocks.splice(kept).forEach((block) => block.nodes.forEach((node) => node.remove()));
  for (const one of html.slice(kept)) {
    const nodes = safeNodes(one);
    piece.box.append(...nodes);
    piece.blocks.push({ html: one, nodes: finish(piece, nodes) });
  }
  piece.rendered = true;
  piece.box.className = piece.whole ? "md joined" : "md";
}

// --- safety ----------------------------------------------------------------------------------------------------------------------

const ALLOWED = new Set(
  ("a b blockquote br caption code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i input ins kbd li mark ol p pre s samp section small span strong " +
    "sub sup table tbody td tfoot th thead tr u ul var").split(" "),
);
const ATTRIBUTES = new Set(["class", "title", "start", "align", "colspan", "rowspan", "dir", "lang", "scope", "role", "aria-label"]);
const MATHML = "http://www.w3.org/1998/Math/MathML";
const WEB = /^(?:https?:\/\/|mailto:)/i;

/** The nodes of the server's HTML, which is safe already; read once more in a document of its own, where nothing is fetched or run. */
function safeNodes(html) {
  const parsed = document.createElement("template");
  parsed.innerHTML = html;
  for (const node of parsed.content.querySelectorAll("*")) {
    const formula = node.namespaceURI === MATHML;
    if (!formula && (node.namespaceURI !== "http://www.w3.org/1999/xhtml" || !ALLOWED.has(node.localName))) {
      node.replaceWith(node.textContent);
      continue;
    }
    const kept = node.localName === "a" && !formula ? node.getAttribute("href") : null;
    for (const { name } of [...node.attributes]) {
      const known = formula ? !/^on|href|style|src/i.test(name) : ATTRIBUTES.has(name);
      const box = node.localName === "input" && ["type", "checked", "disabled"].includes(name);
      if (!known && !box) node.removeAttribute(name);
    }
    if (kept && WEB.test(kept)) {
      Object.assign(node, { href: kept, target: "_blank", rel: "noopener noreferrer nofollow" });
    }
    if (node.localName === "input" && node.type !== "checkbox") node.remove();
  }
  return [...parsed.content.childNodes].map((node) => document.adoptNode(node));
}

/** Copy buttons for code, and wide tables that scroll by themselves. Returns the nodes that stand in the page now. */
function finish(piece, nodes) {
  return nodes.flatMap((node) => {
    if (!(node instanceof HTMLElement)) return [node];
    if (node.localName !== "pre") node.dir = "auto"; // each block by its own first letter; code goes from left to right
    const outer = frameOf(piece, node);
    for (const inner of outer === node ? node.querySelectorAll("pre, table") : []) frameOf(piece, inner);
    for (const box of outer.querySelectorAll("input")) Object.assign(box, { disabled: true, ariaLabel: box.checked ? "done" : "to do" });
    return [outer];
  });
}

function frameOf(piece, node) {
  const table = node.localName === "table";
  const pre = node.localName === "pre" ? node : node.matches("div.highlight, div.codehilite") ? node.querySelector("pre") : null;
  if (!table && !pre) return node;
  const frame = document.createElement("div");
  frame.className = table ? "table-frame" : "code-frame";
  node.replaceWith(frame);
  const scrolled = table ? frame : pre;
  Object.assign(scrolled, { tabIndex: 0, role: "region", ariaLabel: table ? "Table" : "Code" });
  frame.append(node);
  const first = piece.state.pieces.find((other) => other.whole && other.whole === piece.whole);
  if (pre && (!piece.whole || first === piece)) {
    frame.prepend(copyButton(() => piece.whole?.text ?? pre.textContent.replace(/\n$/, "")));
  }
  return frame;
}

/** A button that copies what `text()` gives and says so. */
export function copyButton(text, label = "Copy") {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "copy", textContent: label });
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** Puts `text` on the clipboard; pages that are not served over TLS or loopback have no clipboard of their own, so by selection there. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Until the page is idle, or soon. */
const breath = () =>
  new Promise((resolve) => (window.requestIdleCallback ? requestIdleCallback(resolve, { timeout: 60 }) : setTimeout(resolve, 16)));
