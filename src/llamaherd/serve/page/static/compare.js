// Two models side by side on one prompt. Keeping an answer goes on with it and leaves the other one beside it as a version.

import { streamChat } from "./api.js";
import { untilReady } from "./health.js";
import { overflow } from "./prompt.js";
import { renderInto } from "./render.js";
import { current, fields, fillModels, models, problem } from "./settings.js";
import { addNode, conversation, leaf, on, path } from "./state.js";
import { collect, kept, tokenView } from "./tokens.js";

const ENDS = {
  length: "Cut at the longest answer.",
  stopped: "Stopped: this is what had come.",
  interrupted: "Interrupted: this is what had come.",
  content_filter: "The guard of this server replaced the answer.",
};
const NAMES = ["First model", "Second model"];

let view = null;
let opener = null;
let answered = () => {};

/** Shows the two columns; `draft` is the prompt to begin with. `taken(text)` is told the prompt whose answer is kept. */
export function openCompare({ draft = "", taken = () => {} } = {}) {
  answered = taken;
  view ??= build();
  opener = document.activeElement;
  const last = leaf();
  view.prompt.value = draft || (last?.role === "user" ? last.content : view.prompt.value);
  view.columns.forEach((column, index) => column.renew(index));
  tellBase();
  view.section.hidden = false;
  document.body.classList.add("comparing");
  view.prompt.focus();
}

/** Back to the conversation; what still streams is stopped. */
export function closeCompare({ focus = true } = {}) {
  if (!view || view.section.hidden) return;
  view.columns.forEach((column) => column.clear());
  view.section.hidden = true;
  document.body.classList.remove("comparing");
  if (focus) (opener?.isConnected ? opener : document.getElementById("message"))?.focus();
}

function build() {
  const section = document.getElementById("compare-view");
  const close = button("Back to the conversation", () => closeCompare());
  const head = element("div", { className: "compare-head" });
  head.append(element("h2", { textContent: "Two models, one prompt" }), close);
  const base = element("p", { className: "muted small" });
  const form = element("form", { className: "compare-form" });
  const prompt = element("textarea", { id: "compare-prompt", rows: 2, dir: "auto", placeholder: "A prompt for both" });
  const label = element("label", { className: "hidden", htmlFor: "compare-prompt", textContent: "Prompt for both models" });
  const ask = element("button", { className: "primary", textContent: "Ask both" });
  const wrong = element("p", { className: "problem", hidden: true });
  wrong.setAttribute("role", "alert");
  form.append(label, prompt, ask, wrong);
  const status = element("p", { className: "hidden" });
  status.setAttribute("role", "status");
  const grid = element("div", { className: "compare-columns" });
  const columns = NAMES.map((name) => new Column(name));
  grid.append(...columns.map((column) => column.box));
  section.replaceChildren(head, base, form, grid, status);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    askBoth();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    form.requestSubmit();
  });
  section.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    const busy = columns.filter((column) => column.abort);
    busy.forEach((column) => column.stop());
    if (!busy.length) closeCompare();
    event.stopPropagation();
  });
  on("opened", () => closeCompare({ focus: false }));
  return { section, base, prompt, wrong, status, columns };
}

/** The messages that both go on from: without a last one that has no answer yet, since the prompt takes its place. */
function before() {
  const shown = path();
  return shown.at(-1)?.role === "user" ? shown.slice(0, -1) : shown;
}

function tellBase() {
  const count = before().length;
  const of = conversation.title ? ` “${conversation.title}”` : "";
  view.base.textContent = count
    ? `Both go on from the conversation${of} (${count} messages). The one that you keep becomes its next answer.`
    : "Both answer from the start. The one that you keep begins a conversation.";
}

async function askBoth() {
  const text = view.prompt.value.trim();
  const wrong = text ? (view.columns.map((column) => column.problem()).find(Boolean) ?? null) : "Write a prompt first.";
  view.wrong.hidden = !wrong;
  view.wrong.textContent = wrong ?? "";
  if (wrong) return;
  view.status.textContent = "Both models answer.";
  await Promise.all(view.columns.map((column) => column.ask(view.prompt.value)));
  if (view.columns.every((column) => column.end)) view.status.textContent = "Both answers have ended.";
}

function keep(chosen) {
  const other = view.columns.find((column) => column !== chosen);
  const last = leaf();
  const asked = chosen.asked;
  answered(asked); // before it becomes a message, and the conversation perhaps a new one
  const question =
    last?.role === "user" && last.content === asked ? last : addNode({ parent: before().at(-1)?.id ?? null, role: "user", content: asked });
  for (const column of [other, chosen]) {
    if (column.text && column.asked === asked) addNode({ parent: question.id, role: "assistant", ...column.answer() });
  }
  view.prompt.value = "";
  closeCompare({ focus: false });
  document.getElementById("message")?.focus();
}

/** One model, its settings, and its answer. */
class Column {
  constructor(name) {
    this.box = element("section", { className: "compare-column", ariaLabel: name });
    this.select = element("select", { ariaLabel: name });
    this.own = new OwnSettings(name);
    this.body = element("div", { className: "compare-answer message-body", dir: "auto", tabIndex: 0, role: "region", ariaLabel: `Answer of the ${name.toLowerCase()}` });
    this.note = element("p", { className: "message-note", hidden: true });
    this.actions = element("div", { className: "message-actions", role: "group", ariaLabel: `What to do with the answer of the ${name.toLowerCase()}` });
    this.stopping = button("Stop", () => this.stop());
    this.again = button("Regenerate", () => this.ask(this.asked));
    this.toggle = button("Tokens", () => this.showTokens(this.toggle.ariaPressed !== "true"));
    this.keeping = button("Keep this answer", () => keep(this));
    this.keeping.classList.add("keep");
    this.actions.append(this.stopping, this.again, this.toggle, this.keeping);
    this.box.append(this.select, this.own.box, this.body, this.note, this.actions);
    this.clear();
  }

  /** Takes over the conversation's model in the first column, and another one in the second. */
  renew(index) {
    const known = models().map(({ id }) => id);
    const first = current().model;
    const wanted = index ? (known.find((id) => id !== first) ?? first) : first;
    fillModels(this.select, known.includes(this.select.value) && this.select.value && index ? this.select.value : wanted);
    this.clear();
  }

  clear() {
    this.stop();
    Object.assign(this, { text: "", tokens: [], end: null, asked: null, abort: null, problemSaid: null, dropped: {} });
    this.showTokens(false);
  }

  settings() {
    return { ...current(), ...this.own.read(), model: this.select.value };
  }

  problem() {
    const said = problem(this.settings());
    return said && `${this.box.ariaLabel}: ${said}`;
  }

  bodyOf(prompt) {
    const { system } = current();
    const messages = [...before(), { role: "user", content: prompt }].map(({ role, content }) => ({ role, content }));
    if (system.trim()) messages.unshift({ role: "system", content: system });
    return { ...fields(), ...this.own.read(), ...overflow(), model: this.select.value, messages };
  }

  async ask(prompt) {
    this.clear();
    this.asked = prompt;
    const body = this.bodyOf(prompt);
    const mine = (this.abort = new AbortController());
    this.model = body.model;
    this.update();
    let end = "interrupted";
    try {
      for await (const chunk of streamChat(body, { signal: mine.signal })) {
        if (this.abort !== mine) return;
        end = this.take(chunk) ?? end;
      }
    } catch (error) {
      if (this.abort !== mine) return;
      if (error.kind === "loading") return this.later(error, prompt, mine);
      if (error.name === "AbortError") end = "stopped";
      else if (error.said) this.problemSaid = error.said;
      else throw error;
    }
    Object.assign(this, { end, abort: null });
    this.update();
  }

  /** Asks again once the model is loaded, unless it is stopped before. */
  async later(problem, prompt, mine) {
    this.problemSaid = problem.said;
    this.update();
    const stopped = new Promise((resolve) => mine.signal.addEventListener("abort", () => resolve(true), { once: true }));
    const gaveUp = await Promise.race([untilReady(), stopped]);
    if (this.abort !== mine) return;
    if (gaveUp !== true) return this.ask(prompt);
    Object.assign(this, { end: "stopped", abort: null, problemSaid: null });
    this.update();
  }

  /** Adds what a chunk says; returns the reason why the answer ended, if it did. */
  take({ choices, llamaherd }) {
    if (llamaherd?.dropped_turns) this.dropped = { dropped_turns: llamaherd.dropped_turns };
    const [choice] = choices ?? [];
    if (choice?.logprobs?.content) collect(this.tokens, choice.logprobs.content);
    if (choice?.delta?.content) {
      this.text += choice.delta.content;
      this.show(true);
    }
    return choice?.finish_reason;
  }

  stop() {
    this.abort?.abort();
  }

  showTokens(shown) {
    this.toggle.ariaPressed = String(shown);
    this.show(Boolean(this.abort));
    this.update();
  }

  /** Follows the answer as it grows, unless the reader has gone up. */
  show(streaming) {
    const { body } = this;
    const follows = body.scrollHeight - body.scrollTop - body.clientHeight < 40;
    if (this.toggle.ariaPressed === "true" && !streaming) body.replaceChildren(tokenView(this.tokens));
    else renderInto(body, this.text, { streaming });
    if (streaming && follows) body.scrollTop = body.scrollHeight;
  }

  update() {
    const streaming = Boolean(this.abort);
    if (!streaming) this.show(false);
    this.body.classList.toggle("waiting", streaming && !this.text);
    this.box.setAttribute("aria-busy", String(streaming));
    this.stopping.hidden = !streaming;
    this.again.hidden = streaming || this.asked === null;
    this.toggle.hidden = streaming || !this.tokens.length;
    this.keeping.hidden = streaming || !this.text;
    const said = this.problemSaid ?? ENDS[this.end] ?? (this.end && !this.text ? "The answer is empty." : "");
    this.note.textContent = said;
    this.note.hidden = !said;
  }

  /** As a message of the conversation. */
  answer() {
    return { content: this.text, model: this.model, meta: { finish: this.end, ...this.dropped, ...kept(this.tokens) } };
  }
}

/** Settings of one column that differ from the conversation's; empty ones are the conversation's. */
class OwnSettings {
  constructor(name) {
    this.box = element("details", { className: "own-settings" });
    this.box.append(element("summary", { textContent: "Settings of its own" }));
    this.inputs = [["temperature", "Temperature", "0.05"], ["top_p", "Top-p", "0.05"], ["seed", "Seed", "1"]].map(([field, words, step]) => {
      const input = element("input", { type: "number", step, name: field, placeholder: "as set" });
      const label = element("label", { textContent: words });
      label.append(input);
      this.box.append(label);
      input.ariaLabel = `${words} of the ${name.toLowerCase()}`;
      return input;
    });
  }

  read() {
    const chosen = this.inputs.filter((input) => input.value.trim() !== "" || input.validity.badInput);
    return Object.fromEntries(chosen.map((input) => [input.name, input.validity.badInput ? NaN : Number(input.value)]));
  }
}

function button(text, act) {
  const made = element("button", { type: "button", textContent: text });
  made.addEventListener("click", act);
  return made;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
