// The token view: every token of an answer shaded by its probability, with what else the model thought of.

const CHUNK_TOKENS = 150;
const LEAST_TOKENS = 50; // of a block that ends with a line; a line of more than a chunk is cut
const MOST_ALTERNATIVES = 5;
const LEVELS = [0.9, 0.5, 0.1];
const PLACES = 1e4;
const NEVER = -100;
const MOST_VALUES_KEPT = 120_000; // the server takes 131,072 in a body
const MOST_BYTES_KEPT = 1_000_000; // and keeps a mebibyte beside a message

let tooltip = null;
let shownFor = null;
let counter = 0;

/**
 * Pushes what a chunk's `choice.logprobs.content` says onto `list`, in the short form that a node's meta keeps:
 * [text, log-probability, [[text, log-probability] of the likeliest]].
 */
export function collect(list, content) {
  for (const one of content ?? []) {
    const others = (one.top_logprobs ?? []).slice(0, MOST_ALTERNATIVES).map((other) => [textOf(other), rounded(other.logprob)]);
    list.push([textOf(one), rounded(one.logprob), others]);
  }
}

/**
 * What a message keeps of its tokens, by the names of its meta: all of them; where that is more than the server keeps, without the
 * alternatives; and of what is longer still, how many there were.
 */
export function kept(list) {
  if (!list?.length) return {};
  for (const form of [list, list.map(([text, logprob]) => [text, logprob, []])]) {
    const values = form.reduce((sum, [, , others]) => sum + 4 + 3 * others.length, 0);
    if (values <= MOST_VALUES_KEPT && new Blob([JSON.stringify(form)]).size + values <= MOST_BYTES_KEPT) return { tokens: form };
  }
  return { tokens_left_out: list.length };
}

/** The tokens that a message has, or null: what was imported may hold anything. */
export function tokensOf({ tokens }) {
  const pair = (one) => Array.isArray(one) && typeof one[0] === "string" && typeof one[1] === "number";
  const known = Array.isArray(tokens) && tokens.length && tokens.every((one) => pair(one) && Array.isArray(one[2]) && one[2].every(pair));
  return known ? tokens : null;
}

/** Why there is no token view of a long answer, in words, or nothing. */
export const leftOutWords = ({ tokens_left_out: count }) =>
  Number.isInteger(count) ? `Its ${count.toLocaleString("en")} tokens are too many to be kept for the token view.` : "";

// Infinity has no place in JSON, and nothing below this differs for a reader.
const rounded = (logprob) => Math.max(NEVER, Math.round((logprob ?? NEVER) * PLACES) / PLACES);

/** What a token says; bytes that are no text of their own as `\xE2`. */
function textOf({ token, bytes }) {
  if (!bytes) return token;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
  } catch {
    return bytes.map((byte) => `\\x${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
  }
}

/** exp of the mean negative log-probability; NaN of nothing. */
export function perplexity(list) {
  return Math.exp(-list.reduce((sum, [, logprob]) => sum + logprob, 0) / list.length);
}

/** An element with all tokens of `list` and a line of figures. Arrow keys go from token to token, pointing and tapping show one. */
export function tokenView(list) {
  const view = document.createElement("div");
  view.className = "token-view";
  view.append(figures(list), legend());
  const tokens = document.createElement("div");
  Object.assign(tokens, { className: "tokens", role: "group", ariaLabel: "Tokens of this answer. Arrow keys go from one to the next." });
  view.append(tokens);
  fill(tokens, list, 0);
  const at = (event) => event.target.closest?.(".token");
  tokens.addEventListener("pointerover", (event) => at(event) && show(at(event), list));
  tokens.addEventListener("pointerleave", (event) => !tooltip?.contains(event.relatedTarget) && hideSoon(tokens));
  tokens.addEventListener("focusin", (event) => at(event) && show(at(event), list));
  tokens.addEventListener("focusout", () => hide());
  tokens.addEventListener("click", (event) => at(event)?.focus());
  tokens.addEventListener("keydown", (event) => move(event, tokens));
  return view;
}

function figures(list) {
  const line = document.createElement("p");
  line.className = "token-figures";
  const unlikely = list.filter(([, logprob]) => Math.exp(logprob) < LEVELS[2]).length;
  const said = list.length
    ? `${list.length.toLocaleString("en")} ${list.length === 1 ? "token" : "tokens"} · perplexity ${perplexity(list).toPrecision(3)} · ${unlikely} below 10%`
    : "No tokens are known of this answer.";
  line.textContent = said;
  return line;
}

function legend() {
  const line = document.createElement("p");
  line.className = "token-legend";
  line.append("Probability: ");
  ["90% or more", "50% or more", "10% or more", "less"].forEach((words, level) => {
    const sample = document.createElement("span");
    sample.className = `token-sample level-${level}`;
    sample.textContent = words;
    line.append(sample, " ");
  });
  return line;
}

/** A few tokens a frame, in blocks of their own: what is not seen costs no layout, and what stands already is not laid out again. */
function fill(tokens, list, first) {
  const end = Math.min(first + CHUNK_TOKENS, list.length);
  let index = first;
  const block = document.createElement("div");
  for (let whole = false; index < end && !whole; index++) {
    const [text, logprob] = list[index];
    const probability = Math.exp(logprob);
    const token = document.createElement("span");
    const level = LEVELS.findIndex((least) => probability >= least);
    token.className = `token level-${level < 0 ? LEVELS.length : level}`;
    token.style.setProperty("--unlikely", `${Math.round(100 * (1 - probability))}%`);
    token.textContent = /\S/.test(text) ? text : visible(text);
    Object.assign(token, { tabIndex: index ? -1 : 0, role: "button", ariaLabel: `${spoken(text)}, ${percent(logprob)}` });
    token.dataset.index = index;
    block.append(token);
    whole = text.includes("\n") && index - first >= LEAST_TOKENS;
    if (text.includes("\n") && !whole) block.append(document.createElement("br"));
  }
  tokens.append(block);
  if (index < list.length) requestAnimationFrame(() => fill(tokens, list, index));
}

/** Spaces and line ends as signs, where nothing else would be seen. */
export function visible(text) {
  return text === "" ? "∅" : text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

function spoken(text) {
  return text.trim() || (text.includes("\n") ? "line end" : text ? "space" : "nothing");
}

/** A probability as words for people: never 0% or 100% of what is neither. */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value < 0.01) return "under 0.01%";
  if (value > 99.99 && logprob < 0) return "over 99.99%";
  return `${value < 1 ? value.toFixed(2) : value < 99 ? value.toFixed(1) : value.toFixed(2)}%`;
}

function move(event, tokens) {
  const here = event.target.closest(".token");
  if (!here) return;
  const all = tokens.querySelectorAll(".token");
  const index = Number(here.dataset.index);
  const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: all.length - 1 }[event.key];
  if (event.key === "Escape" && shownFor) {
    hide();
    event.stopPropagation();
    event.preventDefault();
  } else if (to !== undefined && all[to]) {
    event.preventDefault();
    here.tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  }
}

// --- the tooltip -----------------------------------------------------------------------------------------------------------------

function show(token, list) {
  if (shownFor === token) return;
  hide();
  shownFor = token;
  const [text, logprob, others] = list[Number(token.dataset.index)];
  tooltip = document.createElement("div");
  Object.assign(tooltip, { className: "token-tooltip", role: "tooltip", id: `token-tooltip-${++counter}` });
  tooltip.append(table(text, logprob, others));
  tooltip.addEventListener("pointerleave", () => hideSoon(token.closest(".tokens")));
  token.closest("dialog, main").append(tooltip);
  token.setAttribute("aria-describedby", tooltip.id);
  place(token);
  document.addEventListener("scroll", follow, true);
  document.addEventListener("keydown", onEscape, true);
}

function table(text, logprob, others) {
  const listed = others.some(([other]) => other === text) ? others : [[text, logprob], ...others];
  const rows = document.createElement("table");
  rows.createCaption().textContent = `“${visible(text)}” ${percent(logprob)}`;
  for (const [other, value] of listed) {
    const row = rows.insertRow();
    if (other === text) row.className = "chosen";
    row.insertCell().textContent = other === text ? "✓" : "";
    row.insertCell().textContent = visible(other);
    const bar = document.createElement("meter");
    Object.assign(bar, { min: 0, max: 1, value: Math.exp(value), ariaLabel: `probability of ${spoken(other)}` });
    row.insertCell().append(bar);
    row.insertCell().textContent = percent(value);
  }
  return rows;
}

/** Going to a token by key may scroll the page: the tooltip goes with it. */
function follow() {
  if (shownFor?.isConnected) place(shownFor);
  else hide();
}

/** Below the token, or above it where there is no room, and never beyond the window. */
function place(token) {
  const at = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const box = tooltip.getBoundingClientRect();
  const left = Math.max(4, Math.min(at.left, document.documentElement.clientWidth - box.width - 4));
  const top = at.bottom + box.height + 4 > document.documentElement.clientHeight ? Math.max(4, at.top - box.height) : at.bottom;
  tooltip.style.left = `${left}px`;
  tooltip.style.top = `${top}px`;
}

function hideSoon(tokens) {
  const was = shownFor;
  setTimeout(() => {
    if (shownFor === was && !tooltip?.matches(":hover") && !tokens.matches(":focus-within")) hide();
  }, 120);
}

function onEscape(event) {
  if (event.key === "Escape") {
    hide();
    event.stopPropagation();
  }
}

function hide() {
  tooltip?.remove();
  shownFor?.removeAttribute("aria-describedby");
  tooltip = shownFor = null;
  document.removeEventListener("keydown", onEscape, true);
  document.removeEventListener("scroll", follow, true);
}
