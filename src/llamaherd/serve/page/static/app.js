// Puts the page together: addresses, notices, shortcuts, the theme, and what happens when the page is left.

import { enter, signIn } from "./account.js";
import { answering, bodyFor, onChat, saveAll, stop, watchElsewhere } from "./chat.js";
import { openCompare } from "./compare.js";
import { draft, focusComposer, initComposer, setDraft } from "./composer.js";
import { onHealth, present, untilReady } from "./health.js";
import { adopt, flush, flushClosing, onOthers, onSaving } from "./outbox.js";
import { openPrompt } from "./prompt.js";
import { current, fetchModels, initSettings, modelSelect, openSettings } from "./settings.js";
import { initSidebar, newConversation, refreshList, setSidebar, sidebarOpen } from "./sidebar.js";
import { beginWith, conversation, fresh, leaf, on, open, path, refresh } from "./state.js";
import { focusMessage, initThread, viewOf } from "./thread.js";

const SAID_CHARACTERS = 600;
const byId = (id) => document.getElementById(id);
const notice = byId("notice");
const announcer = byId("announcer");

// --- words -----------------------------------------------------------------------------------------------------------------------

/** For screen readers. */
function announce(text) {
  announcer.textContent = "";
  setTimeout(() => { announcer.textContent = text; }, 50);
}

const problems = { chat: null, saving: null, page: null };

const HEALTH = {
  loading: "The model is being loaded. You can write already; the answer comes as soon as it is ready.",
  draining: "The server is being shut down or restarted. What you write is kept.",
  failed: "The model could not be loaded. The server's own output says why.",
  gone: "The server cannot be reached. What you write is kept and sent when it is back.",
};

function wordsNow() {
  const waits = answering()?.waits;
  if (waits?.kind === "busy") return `The server is busy. Your message is kept and sent again in ${Math.ceil(waits.retryAfter ?? 1)} s; Stop gives up.`;
  if (present() !== "ready") return HEALTH[present()] ?? "";
  if (waits) return waits.said;
  const { chat, saving, page } = problems;
  if (chat) return chat.said + (chat.kind === "full" ? " Start a new conversation, edit an earlier message, or let the oldest turns be left out." : "");
  if (saving) return saving.passes ? "What you wrote is kept here until the server can save it." : `Not saved: ${saving.said}`;
  return page?.said ?? "";
}

function showNotice() {
  const text = wordsNow();
  if (notice.dataset.text === text) return;
  notice.dataset.text = text;
  notice.hidden = !text;
  const words = document.createElement("span");
  words.textContent = text;
  notice.replaceChildren(words);
  if ([problems.chat, problems.saving, problems.page].some((one) => one?.kind === "key")) addNoticeButton("Sign in", signIn);
  else if (Object.values(problems).some(Boolean) && present() === "ready") addNoticeButton("Dismiss", dismiss);
}

function addNoticeButton(text, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", act);
  notice.append(button);
}

function dismiss() {
  Object.assign(problems, { chat: null, saving: null, page: null });
  showNotice();
  focusComposer();
}

function complain(problem, where = "page") {
  problems[where] = typeof problem === "string" ? { said: problem, kind: "refused" } : problem;
  if (problem && where === "page") problems.chat = null; // the newer one is said
  if (problem?.passes) untilReady();
  showNotice();
}

// --- addresses -------------------------------------------------------------------------------------------------------------------

async function openAddressed() {
  if (location.hash && !location.hash.startsWith("#/")) return;
  const [, id] = location.hash.match(/^#\/c\/(.+)$/) ?? [];
  if (!id) return conversation.id ? fresh() : undefined;
  const wanted = decodeURIComponent(id);
  if (wanted === conversation.id) return;
  try {
    await open(wanted);
    problems.page = null;
  } catch (problem) {
    if (problem.passes) untilReady().then(openAddressed);
    if (problem.kind === "missing") {
      history.replaceState(null, "", "#/");
      fresh();
    }
    complain(problem.kind === "missing" ? "There is no such conversation; it may have been deleted." : problem);
  }
  showNotice();
}

function followConversation() {
  byId("title").textContent = conversation.title || "New conversation";
  document.title = conversation.title ? `${conversation.title} · llamaherd` : "llamaherd";
  const address = conversation.id ? `#/c/${encodeURIComponent(conversation.id)}` : null;
  if (address && location.hash !== address) history.pushState(null, "", address);
}

// --- shortcuts -------------------------------------------------------------------------------------------------------------------

const lastOf = (role) => path().findLast((one) => one.role === role);

const SHORTCUTS = [
  { keys: "Enter", words: "Send the message" },
  { keys: "Shift+Enter", words: "New line" },
  { keys: "Escape", words: "Stop the answer", act: () => { if (!answering()) return false; stop(); return true; } },
  { keys: "ArrowUp", words: "In an empty message box: edit the last message", act: editLast, empty: true },
  { keys: "Ctrl+Shift+O", words: "New conversation", act: () => { newConversation(); focusComposer(); } },
  { keys: "Ctrl+K", words: "Search conversations", act: () => { setSidebar(true); byId("search").focus(); } },
  { keys: "Ctrl+Shift+S", words: "Show or hide the conversations", act: () => setSidebar(!sidebarOpen()) },
  { keys: "Ctrl+Shift+Enter", words: "Regenerate the last answer", act: () => press("again") },
  { keys: "Ctrl+Enter", words: "While a message is edited: send it" },
  { keys: "Alt+ArrowUp", words: "To the message before", act: () => focusMessage(-1) },
  { keys: "Alt+ArrowDown", words: "To the next message", act: () => focusMessage(1) },
  { keys: "Ctrl+,", words: "Settings", act: () => openSettings() },
  { keys: "Ctrl+/", words: "This list", act: () => byId("help-dialog").showModal() },
];

function press(act) {
  const one = lastOf("assistant");
  viewOf(one?.id)?.render();
  viewOf(one?.id)?.element.querySelector(`[data-act="${act}"]`)?.click();
}

function editLast() {
  const one = lastOf("user");
  if (!one || answering()) return false;
  viewOf(one.id).edit();
  return true;
}

function keysOf(event) {
  const parts = [(event.ctrlKey || event.metaKey) && "Ctrl", event.altKey && "Alt", event.shiftKey && "Shift"].filter(Boolean);
  return [...parts, event.key.length === 1 ? event.key.toUpperCase() : event.key].join("+");
}

function shortcut(event) {
  if (event.defaultPrevented || event.isComposing || event.keyCode === 229 || document.querySelector("dialog[open]")) return;
  if (document.body.classList.contains("comparing")) return;
  const keys = keysOf(event);
  const wanted = SHORTCUTS.find((one) => one.act && one.keys === keys);
  if (!wanted || (wanted.empty && (event.target.id !== "message" || draft()))) return;
  if (wanted.act() !== false) event.preventDefault();
}

function listShortcuts() {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  for (const { keys, words } of SHORTCUTS) {
    const term = document.createElement("dt");
    for (const [index, key] of keys.split("+").entries()) {
      const cap = document.createElement("kbd");
      cap.textContent = (mac && key === "Ctrl" ? "⌘" : key).replace("ArrowUp", "↑").replace("ArrowDown", "↓").replace("Escape", "Esc");
      if (index) term.append("+");
      term.append(cap);
    }
    const what = document.createElement("dd");
    what.textContent = words;
    byId("shortcuts").append(term, what);
  }
}

// --- theme -----------------------------------------------------------------------------------------------------------------------

const THEMES = [["system", "◐", "as the system"], ["light", "☀", "light"], ["dark", "☾", "dark"]];

function setTheme(name) {
  const [kept, sign, words] = THEMES.find((one) => one[0] === name) ?? THEMES[0];
  if (kept === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("llamaherd.theme");
  } else {
    document.documentElement.dataset.theme = kept;
    localStorage.setItem("llamaherd.theme", kept);
  }
  Object.assign(byId("theme"), { textContent: sign, ariaLabel: `Theme: ${words}`, title: `Theme: ${words}` });
}

function nextTheme() {
  const at = THEMES.findIndex((one) => one[0] === (document.documentElement.dataset.theme ?? "system"));
  setTheme(THEMES[(at + 1) % THEMES.length][0]);
}

// --- together --------------------------------------------------------------------------------------------------------------------

function finished({ node: one }) {
  const cut = one.content.length > SAID_CHARACTERS ? ` … ${one.content.split(/\s+/).length} words in all` : "";
  announce(`${one.meta.finish === "stopped" ? "Stopped. " : ""}Answer: ${one.content.slice(0, SAID_CHARACTERS)}${cut}`);
}

/** Takes over what another tab did to the open conversation. */
async function reread() {
  try {
    await refresh();
  } catch (problem) {
    if (problem.kind !== "missing") return;
    newConversation();
    complain("This conversation was deleted in another tab.");
  }
  watchElsewhere(reread);
}

function wire(listChanged) {
  byId("open-settings").addEventListener("click", () => openSettings());
  byId("open-compare").addEventListener("click", () => openCompare({ draft: draft(), taken: (text) => { if (draft().trim() === text.trim()) setDraft(""); } }));
  byId("open-prompt").addEventListener("click", () => {
    const text = draft().trim() ? draft() : null;
    const last = leaf();
    const messages = last?.role === "user" ? (text ? path().slice(0, -1) : path()) : text ? path() : path().slice(0, -1);
    if (messages.length || text) openPrompt(bodyFor(messages, { draft: text }));
    else complain("Write a message first: the prompt is what the model would read.");
  });
  byId("open-help").addEventListener("click", () => byId("help-dialog").showModal());
  byId("theme").addEventListener("click", nextTheme);
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); focusComposer(); });
  document.addEventListener("keydown", shortcut);
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  on("opened", () => { followConversation(); watchElsewhere(reread); });
  on("title", followConversation);
  onChat("stream", () => { if (answering() && !answering().waits) announce("Answering"); showNotice(); });
  onChat("finished", (detail) => { finished(detail); listChanged(); });
  onChat("problem", ({ problem }) => {
    problems.chat = problem;
    if (problem?.passes) untilReady();
    if (problem?.code === "model_not_found") fetchModels();
    showNotice();
  });
  onSaving(({ problem }) => { problems.saving = problem; if (problem?.kind === "gone") untilReady(); showNotice(); });
  onHealth((state) => {
    if (state === "ready") {
      Object.assign(problems, { saving: null, page: problems.page?.passes ? null : problems.page });
      if (problems.chat?.passes) problems.chat = null;
      announce("The server is ready");
      flush();
      refreshList();
      fetchModels();
    }
    showNotice();
  });
  let soon = 0;
  onOthers((changed) => {
    listChanged();
    if (!conversation.id || !changed.includes(conversation.id)) return;
    clearTimeout(soon);
    soon = setTimeout(reread, 400);
  });
  window.addEventListener("hashchange", openAddressed);
  window.addEventListener("pagehide", () => { saveAll(); flushClosing(); });
  window.addEventListener("online", () => flush());
}

async function start() {
  beginWith(current);
  listShortcuts();
  await enter(complain);
  setTheme(localStorage.getItem("llamaherd.theme") ?? "system");
  initThread(announce);
  const listChanged = initSidebar(announce, complain);
  initComposer(complain);
  wire(listChanged);
  byId("model-slot").append(modelSelect());
  untilReady();
  await adopt(); // first, so that what is opened is what was written
  refreshList();
  await Promise.allSettled([initSettings(), openAddressed()]);
  if (matchMedia("(pointer: fine)").matches) focusComposer();
  document.body.dataset.ready = "yes";
}

start();
