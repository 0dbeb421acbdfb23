// The box that messages are written in. What is written stays in this browser until it is sent.

import { answering, bodyFor, onChat, send, stop } from "./chat.js";
import { mountMeter } from "./prompt.js";
import { onChange, problem as settingsProblem } from "./settings.js";
import { conversation, on, path } from "./state.js";
import { toEnd } from "./thread.js";

const MOST_HEIGHT = 0.4; // of the window
const DRAFT = "llamaherd.draft.";

const form = document.getElementById("composer");
const box = document.getElementById("message");
const sendButton = document.getElementById("send");
const stopButton = document.getElementById("stop");
let meter = null;
let place = DRAFT + "new";
let tell = () => {};

function keepDraft() {
  try {
    if (box.value) localStorage.setItem(place, box.value);
    else localStorage.removeItem(place);
  } catch {
    // a browser that keeps nothing still shows what is in the box
  }
}

function fitHeight() {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, window.innerHeight * MOST_HEIGHT)}px`;
}

function written() {
  fitHeight();
  keepDraft();
  meter?.update();
}

export const draft = () => box.value;

export function setDraft(text) {
  box.value = text;
  written();
}

export const focusComposer = () => box.focus({ preventScroll: true });

/** Whether Enter only ends the composition of characters (Chinese, Japanese, Korean): some browsers tell by the key code alone. */
const composes = (event) => event.isComposing || event.keyCode === 229;

function submit() {
  const text = box.value;
  if (!text.trim() || answering()) return;
  const wrong = settingsProblem();
  tell(wrong);
  if (wrong) return;
  box.value = "";
  written();
  send(text);
  toEnd();
  box.focus();
}

function showButtons() {
  const busy = Boolean(answering());
  const held = document.activeElement;
  sendButton.hidden = busy;
  stopButton.hidden = !busy;
  if (held === stopButton && !busy) box.focus();
  else if (held === sendButton && busy) stopButton.focus();
}

/** A draft belongs to its conversation; that of a new one goes with it once it has a name. */
function opened() {
  keepDraft();
  restore();
}

function restore() {
  place = DRAFT + (conversation.id ?? "new");
  box.value = localStorage.getItem(place) ?? "";
  fitHeight();
  showButtons();
  meter?.anew();
}

export function initComposer(said) {
  tell = said;
  meter = mountMeter(document.getElementById("meter"), {
    body: () => {
      if (answering()) return null;
      const before = path();
      const last = before.at(-1);
      const text = box.value.trim() ? box.value : null;
      if (text) return bodyFor(last?.role === "user" ? before.slice(0, -1) : before, { draft: text });
      if (!last || last.role === "user") return last ? bodyFor(before) : null;
      return { ...bodyFor(before, { draft: "?" }), approximate: true }; // a prompt ends with a message of the user
    },
  });
  box.addEventListener("input", written);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.altKey || composes(event)) return;
    event.preventDefault();
    submit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  stopButton.addEventListener("click", stop);
  window.addEventListener("resize", fitHeight);
  on("opened", opened);
  on("path", () => {
    const now = DRAFT + (conversation.id ?? "new");
    if (now !== place) {
      place = now;
      keepDraft();
    }
    meter?.update();
  });
  onChat("stream", () => { showButtons(); meter?.update(); });
  onChange(() => meter?.update());
  restore();
}
