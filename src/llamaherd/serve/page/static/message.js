// One message on the page: its text, how it ended, and what can be done with it. Built in three steps, since there may be thousands:
// an empty shell of about the right height, then the plain text, and near the screen the rendered text with its buttons.

import { continueAnswer, edit, isElsewhere, isStreaming, regenerate } from "./chat.js";
import { renderInto } from "./render.js";
import { branches, conversation, showBranch } from "./state.js";
import { leftOutWords, tokensOf, tokenView } from "./tokens.js";

const NOTES = new Map([
  ["stopped", "Stopped: this is what had come."],
  ["interrupted", "Interrupted: this is what had come."],
  ["streaming", "Interrupted: this is what had come."],
  ["length", "Cut at the longest answer."],
  ["content_filter", "The guard of this server replaced the answer."],
]);
export const isCut = (one) => ["stopped", "interrupted", "streaming", "length"].includes(one.meta.finish);

function button(text, act, label = null) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // without https there is no clipboard but this one
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A guess that spares the page most of its jumps: lines of a usual width. */
const guessedHeight = (text) => 70 + 25 * Math.max(1, Math.ceil(text.length / 85) + (text.match(/\n/g)?.length ?? 0));

export class MessageView {
  constructor(one, say) {
    this.node = one;
    this.say = say;
    this.step = 0;
    this.tokens = false;
    this.element = document.createElement("article");
    this.element.className = `message ${one.role}`;
    this.element.dataset.id = one.id;
    this.element.tabIndex = -1;
    this.element.setAttribute("aria-label", this.who);
    this.element.style.containIntrinsicHeight = `auto ${guessedHeight(one.content)}px`;
  }

  get who() {
    return this.node.role === "user" ? "You" : this.node.model || "Model";
  }

  /** The plain text: enough to find and to read, at the cost of a text node. */
  fill() {
    if (this.step > 0) return;
    this.step = 1;
    this.head = document.createElement("h2");
    this.head.textContent = this.who;
    this.body = document.createElement("div");
    this.body.className = "message-body plain";
    this.body.dir = "auto";
    this.body.textContent = this.node.content;
    this.element.replaceChildren(this.head, this.body);
  }

  /** Everything, for a message that is about to be seen. */
  render() {
    if (this.step === 2) return;
    this.fill();
    this.step = 2;
    this.note = document.createElement("p");
    this.note.className = "message-note";
    this.actions = document.createElement("div");
    this.actions.className = "message-actions";
    this.actions.setAttribute("role", "group");
    this.actions.setAttribute("aria-label", "What to do with this message");
    this.element.append(this.note, this.actions);
    this.update();
  }

  /** After text, state or the versions beside it have changed. */
  update() {
    if (this.step < 2 || this.editor) return;
    const streaming = isStreaming(this.node);
    this.showText(streaming);
    this.element.setAttribute("aria-busy", String(streaming));
    const note = streaming ? "" : this.noteText();
    this.note.textContent = note;
    this.note.hidden = !note;
    this.showActions(streaming);
  }

  /** The buttons, made anew only when others are needed: a path of a thousand messages is updated at every turn. */
  showActions(streaming) {
    const { node: one, tokens } = this;
    const beside = branches(one.id);
    const key = [streaming, beside.indexOf(one.id), beside.length, this.goesOn, Boolean(this.known), tokens].join();
    if (key === this.key) return;
    this.key = key;
    const held = this.actions.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    this.actions.replaceChildren(...(streaming ? [] : this.buttons()));
    if (held) (this.actions.querySelector(`[data-act="${held}"]`) ?? this.element).focus({ preventScroll: true });
  }

  /** The tokens of the answer, once there are all of them. */
  get known() {
    const { tokens } = this.node.meta;
    if (tokens !== this.checked) [this.checked, this.found] = [tokens, tokensOf(this.node.meta)];
    return this.found ?? null;
  }

  /** Whether the answer can be gone on with. */
  get goesOn() {
    const { node: one } = this;
    return one.role === "assistant" && !isElsewhere(one) && one.id === conversation.leaf && Boolean(one.content) && (isCut(one) || Boolean(one.meta.edited));
  }

  showText(streaming) {
    const { content } = this.node;
    const shown = `${streaming}:${this.tokens}:${content.length}:${this.known?.length}`;
    if (shown === this.shown && content === this.shownText) return;
    [this.shown, this.shownText] = [shown, content];
    this.body.classList.toggle("waiting", streaming && !content);
    if (this.tokens && this.known && !streaming) {
      this.body.replaceChildren(tokenView(this.known));
    } else if (this.node.role === "user") {
      this.body.textContent = content;
    } else {
      this.body.classList.remove("plain");
      renderInto(this.body, content, { streaming });
    }
  }

  noteText() {
    if (isElsewhere(this.node)) return "Being written in another tab.";
    if (!this.node.content && this.node.role === "assistant") return "The answer is empty.";
    const { finish, edited, dropped_turns: dropped } = this.node.meta;
    const how = NOTES.get(finish) ?? (edited ? "Written by you in place of the answer." : "");
    const full = dropped ? `The context was full: the oldest ${dropped === 1 ? "turn was" : `${dropped} turns were`} not read.` : "";
    return [full, how, leftOutWords(this.node.meta)].filter(Boolean).join(" ");
  }

  buttons() {
    const { node: one } = this;
    const made = [];
    const add = (act, text, run, pressed = null) => {
      const added = button(text, run);
      added.dataset.act = act;
      if (pressed !== null) added.setAttribute("aria-pressed", String(pressed));
      made.push(added);
    };
    const versions = this.versions();
    if (versions) made.push(versions);
    add("copy", "Copy", async () => { await copy(one.content); this.say("Copied"); });
    add("edit", "Edit", () => this.edit());
    if (one.role === "assistant") {
      add("again", "Regenerate", () => regenerate(one.id));
      if (this.goesOn) add("continue", "Continue", () => continueAnswer(one.id));
      if (this.known) {
        add("tokens", "Tokens", () => { this.tokens = !this.tokens; this.update(); }, this.tokens);
      }
    }
    return made;
  }

  /** Arrows between the versions of a message, where there are several. */
  versions() {
    const beside = branches(this.node.id);
    if (beside.length < 2) return null;
    const index = beside.indexOf(this.node.id);
    const box = document.createElement("span");
    box.className = "versions";
    const step = (by, text, label, act) => {
      const made = button(text, () => showBranch(beside[index + by]), label);
      made.dataset.act = act;
      made.disabled = !(index + by in beside);
      return made;
    };
    const count = document.createElement("span");
    count.textContent = `${index + 1}/${beside.length}`;
    count.setAttribute("aria-label", `Version ${index + 1} of ${beside.length}`);
    count.setAttribute("role", "img");
    box.append(step(-1, "‹", "Previous version", "previous"), count, step(1, "›", "Next version", "next"));
    return box;
  }

  /** A text box in place of the message; saving makes a new version beside it. */
  edit() {
    this.render();
    if (this.editor) return;
    const { node: one } = this;
    this.editor = document.createElement("form");
    const text = document.createElement("textarea");
    text.value = one.content;
    text.dir = "auto";
    text.setAttribute("aria-label", "Edit the message");
    const row = document.createElement("div");
    row.className = "row end";
    const done = button(one.role === "user" ? "Send" : "Keep", () => this.editor.requestSubmit());
    done.className = "primary";
    row.append(button("Cancel", () => this.endEdit()), done);
    this.editor.append(text, row);
    this.editor.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!text.value.trim()) return;
      this.endEdit();
      if (text.value !== one.content || one.role === "user") edit(one.id, text.value);
    });
    this.editor.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        this.endEdit();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.editor.requestSubmit();
    });
    for (const hidden of [this.body, this.note, this.actions]) hidden.hidden = true;
    this.element.append(this.editor);
    text.focus();
  }

  endEdit() {
    this.editor.remove();
    this.editor = null;
    this.body.hidden = this.actions.hidden = false;
    this.update();
    this.actions.querySelector('[data-act="edit"]')?.focus({ preventScroll: true });
  }
}
