// The exact prompt with its tokens, and how much of the context it takes.

import { post } from "./api.js";
import { copyButton } from "./render.js";
import { leaf } from "./state.js";
import { visible } from "./tokens.js";

const DEBOUNCE_MS = 350;
const NEARLY_FULL = 0.9;
const LAST_CONTROL_ID = 2; // unknown, begin and end: what stands in a text never becomes one of these
const CHUNK_TOKENS = 150;

let dropTurns = false;

/** What a chat completion's body says about a context that is full: nothing, or that the oldest turns are left out. */
export function overflow() {
  return dropTurns ? { overflow: "drop-turns" } : {};
}

const number = (value) => value.toLocaleString("en");

/** What the preview is asked for: a body without what only an answer needs. */
function asked(body) {
  const { stream, stream_options, logprobs, top_logprobs, approximate, ...rest } = body;
  return { ...rest, ...overflow() };
}

// --- the dialog ------------------------------------------------------------------------------------------------------------------

/** Shows the prompt that `body`, a chat completion's, becomes. */
export async function openPrompt(body) {
  const dialog = document.getElementById("prompt-dialog");
  const content = document.createElement("div");
  content.append(words("p", "Reading the prompt …", "muted"));
  dialog.replaceChildren(words("h2", "The exact prompt"), content, closing());
  if (!dialog.open) dialog.showModal();
  try {
    content.replaceChildren(...shown(await post("/v1/chat/preview", asked(body))));
  } catch (error) {
    const said = words("p", error.said, "problem");
    said.setAttribute("role", "alert");
    content.replaceChildren(said);
  }
}

function shown({ prompt, tokens, count, context, room, dropped_turns: dropped }) {
  const line = words("p", `${number(count)} of ${number(context)} tokens; room for ${number(room)} more in the answer.`, "prompt-count");
  const parts = [line];
  if (dropped) parts.push(words("p", leftOut(dropped), "prompt-dropped"));
  const ids = document.createElement("input");
  ids.type = "checkbox";
  const choice = document.createElement("label");
  choice.className = "check";
  choice.append(ids, "Show the number of each token");
  const list = document.createElement("div");
  Object.assign(list, { className: "prompt-tokens", tabIndex: 0, role: "region", ariaLabel: "Tokens of the prompt" });
  ids.addEventListener("change", () => list.classList.toggle("with-ids", ids.checked));
  const note = words("p", "Boxed tokens with a bold frame are control tokens, which only the chat format itself can set.", "muted small");
  const bar = document.createElement("div");
  bar.className = "row";
  bar.append(choice, copyButton(() => prompt, "Copy the text"));
  fill(list, tokens, 0);
  return [...parts, bar, list, note];
}

/** A few tokens a frame, in blocks of their own: what is not seen costs no layout, and what stands already is not laid out again. */
function fill(list, tokens, first) {
  const block = document.createElement("div");
  list.append(block);
  for (const { id, piece, text } of tokens.slice(first, first + CHUNK_TOKENS)) {
    const token = document.createElement("span");
    const control = id <= LAST_CONTROL_ID;
    token.className = control ? "prompt-token control" : "prompt-token";
    token.append(control ? piece : text === "" ? piece : visible(text));
    token.title = control ? `control token ${id}: ${piece}` : `token ${id}: ${piece}`;
    if (control) token.append(words("span", " (control token)", "hidden"));
    token.append(words("span", String(id), "prompt-id"));
    block.append(token);
    if (text.includes("\n") || (control && piece === "</s>")) block.append(document.createElement("br"));
  }
  if (first + CHUNK_TOKENS < tokens.length) requestAnimationFrame(() => fill(list, tokens, first + CHUNK_TOKENS));
}

function leftOut(turns) {
  return `The context is full: the oldest ${turns === 1 ? "turn is" : `${number(turns)} turns are`} left out of what the model reads.`;
}

// --- the meter -------------------------------------------------------------------------------------------------------------------

/**
 * A meter of the context in `container`. `body()` gives the body of the chat completion that sending now would make, or null where
 * there is nothing to count. Call `update()` of what it returns after every change, `anew()` for another conversation.
 */
export function mountMeter(container, { body }) {
  const bar = document.createElement("meter");
  Object.assign(bar, { min: 0, max: 1, low: NEARLY_FULL, high: 0.98, optimum: 0, value: 0, ariaLabel: "Context used", hidden: true });
  const figure = words("span", "", "meter-figure");
  const warning = words("span", "", "meter-warning");
  warning.setAttribute("role", "status");
  const box = document.createElement("input");
  Object.assign(box, { type: "checkbox", checked: dropTurns });
  const choice = document.createElement("label");
  choice.className = "check";
  choice.hidden = true;
  choice.append(box, "Leave out the oldest turns");
  container.classList.add("context-meter");
  container.replaceChildren(bar, figure, warning, choice);

  let timer = 0;
  let asking = null;

  async function ask() {
    asking?.abort();
    const wanted = body();
    if (!wanted) {
      if (!leaf()) say("", null);
      return; // while an answer comes, what was counted last stays
    }
    const mine = (asking = new AbortController());
    try {
      const found = await post("/v1/chat/preview", asked(wanted), { signal: mine.signal });
      if (mine === asking) tell(found, wanted.approximate);
    } catch (error) {
      if (mine === asking && error.name !== "AbortError") refuse(error);
    }
  }

  function tell({ count, context, room, dropped_turns: dropped }, approximate) {
    const near = count >= NEARLY_FULL * context;
    const low = `nearly full: room for ${number(room)} more tokens`;
    say(dropped ? leftOut(dropped) : near ? low : "", count / context, `${approximate ? "about " : ""}${number(count)} of ${number(context)} tokens`);
    choice.hidden = !(near || dropped || dropTurns);
  }

  function refuse(error) {
    const full = error.kind === "full";
    say(full ? error.said : "", full ? 1 : null, full ? "" : figure.textContent);
    choice.hidden = !(full || dropTurns);
  }

  function say(text, share, count = "") {
    if (warning.textContent !== text) warning.textContent = text;
    figure.textContent = count;
    bar.hidden = share === null;
    bar.value = share ?? 0;
    bar.textContent = count;
  }

  const update = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, DEBOUNCE_MS);
  };
  box.addEventListener("change", () => {
    dropTurns = box.checked;
    ask();
  });
  /** Another conversation: what was counted of the last one does not hold. */
  const anew = () => {
    asking?.abort();
    asking = null;
    say("", null);
    update();
  };
  return { update, anew };
}

function closing() {
  const form = document.createElement("form");
  form.method = "dialog";
  form.className = "row end";
  const button = words("button", "Close", "primary");
  form.append(button);
  return form;
}

function words(name, text, className) {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}
