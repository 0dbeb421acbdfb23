// The saved conversations: list, search, rename, delete, export and import.

import { getBlob, getJson, sendJson } from "./api.js";
import { flush, onOthers, tellOthers } from "./outbox.js";
import { conversation, fresh, on, setTitle } from "./state.js";

const PAGE = 50;
const TYPING_MS = 200;
const wide = matchMedia("(min-width: 761px)");

const byId = (id) => document.getElementById(id);
const list = byId("conversations");
const search = byId("search");
const found = byId("found");
const more = byId("more-conversations");
const sidebar = byId("sidebar");
const toggle = byId("toggle-sidebar");
const shade = byId("shade");
let next = null;
let asked = 0;
let say = () => {};
let complain = () => {};

const shown = () => search.value.trim();

async function page(before = null) {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (shown()) query.set("query", shown());
  if (before !== null) query.set("before", before);
  return getJson(`/api/conversations?${query}`);
}

/** Reads the list anew. A search that has been overtaken by another is dropped. */
export async function refreshList() {
  asked += 1;
  const mine = asked;
  try {
    const { data, next: after } = await page();
    if (mine !== asked) return;
    next = after ?? null;
    const held = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    const act = document.activeElement?.dataset?.act;
    list.replaceChildren(...data.map(entry));
    if (held) list.querySelector(`li[data-id="${held}"] [data-act="${act}"]`)?.focus();
    more.hidden = next === null;
    found.textContent = shown() ? (data.length ? `${data.length}${next === null ? "" : " and more"} found` : "Nothing found") : "";
  } catch (problem) {
    if (mine === asked) found.textContent = problem.kind === "gone" ? "The list comes back with the server." : problem.said ?? String(problem);
  }
}

async function older() {
  try {
    const { data, next: after } = await page(next);
    next = after ?? null;
    const added = data.filter((one) => !list.querySelector(`li[data-id="${one.id}"]`)).map(entry);
    list.append(...added);
    more.hidden = next === null;
    added[0]?.querySelector("a").focus();
  } catch (problem) {
    complain(problem);
  }
}

function entry(one) {
  const item = document.createElement("li");
  item.dataset.id = one.id;
  const link = document.createElement("a");
  link.href = `#/c/${encodeURIComponent(one.id)}`;
  link.dir = "auto";
  link.dataset.act = "open";
  const title = document.createElement("span");
  title.textContent = one.title || "Untitled";
  link.append(title);
  if (shown() && one.snippet) {
    const snippet = document.createElement("span");
    snippet.className = "snippet";
    snippet.textContent = one.snippet;
    link.append(snippet);
  }
  if (one.id === conversation.id) link.setAttribute("aria-current", "page");
  link.addEventListener("click", () => closeDrawer());
  const menu = document.createElement("button");
  Object.assign(menu, { type: "button", textContent: "⋯", ariaLabel: `More for ${one.title || "Untitled"}`, ariaExpanded: "false" });
  menu.dataset.act = "more";
  menu.addEventListener("click", () => toggleMenu(item, one, menu));
  item.append(link, menu);
  return item;
}

function toggleMenu(item, one, menu) {
  const open = item.querySelector(".menu");
  menu.ariaExpanded = String(!open);
  if (open) return open.remove();
  const box = document.createElement("div");
  box.className = "menu";
  const add = (text, act, run) => {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", textContent: text });
    made.dataset.act = act;
    made.addEventListener("click", run);
    box.append(made);
  };
  add("Rename", "rename", () => rename(one));
  add("Export", "export", () => download(`/api/conversations/${encodeURIComponent(one.id)}/export`, `${fileName(one.title)}.json`));
  add("Delete", "delete", () => remove(one));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      toggleMenu(item, one, menu);
      menu.focus();
    }
  });
  item.append(box);
  box.firstChild.focus();
}

const fileName = (title) => (title || "conversation").replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";

/** What a dialog's form was closed with. */
function answerOf(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

async function rename(one) {
  const input = byId("rename-title");
  input.value = one.title;
  input.select();
  if ((await answerOf(byId("rename-dialog"))) !== "rename" || !input.value.trim()) return;
  const title = input.value.trim();
  if (one.id === conversation.id) {
    setTitle(title);
    await flush();
  } else {
    await sendJson("PATCH", `/api/conversations/${encodeURIComponent(one.id)}`, { title }).then(() => tellOthers(`/api/conversations/${one.id}`), complain);
  }
  await refreshList();
  say("Renamed");
}

async function remove(one) {
  byId("confirm-text").textContent = `Delete “${one.title || "Untitled"}” with all its messages? This cannot be taken back.`;
  if ((await answerOf(byId("confirm-dialog"))) !== "yes") return;
  try {
    await flush();
    await sendJson("DELETE", `/api/conversations/${encodeURIComponent(one.id)}`);
    tellOthers(`/api/conversations/${one.id}`);
  } catch (problem) {
    if (problem.kind !== "missing") return complain(problem);
  }
  if (one.id === conversation.id) newConversation();
  await refreshList();
  say("Deleted");
  (list.querySelector("a") ?? byId("new-conversation")).focus();
}

async function download(address, name) {
  try {
    await flush();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await getBlob(address));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (problem) {
    complain(problem);
  }
}

async function importFile(input) {
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  try {
    const taken = await sendJson("POST", "/api/import", await file.text(), { text: true });
    await refreshList();
    found.textContent = importedWords(taken);
  } catch (problem) {
    complain(problem);
  }
}

/** How many came in, and why the others did not. */
function importedWords({ imported, left_out: left = [] }) {
  const words = `Imported ${imported} ${imported === 1 ? "conversation" : "conversations"}.`;
  if (!left.length) return words;
  return `${words} Left out ${left.length}: ${left.slice(0, 3).map(({ index, why }) => `number ${index + 1}, ${why}`).join("; ")}`;
}

export function newConversation() {
  if (location.hash && location.hash !== "#/") history.pushState(null, "", "#/");
  fresh();
  closeDrawer();
}

/** On narrow screens the sidebar is a drawer over the page. */
export function setSidebar(open) {
  document.body.classList.toggle("without-sidebar", !open);
  toggle.setAttribute("aria-expanded", String(open));
  shade.hidden = !open || wide.matches;
  byId("main").inert = open && !wide.matches;
  if (open && !wide.matches) search.focus();
}

export const sidebarOpen = () => !document.body.classList.contains("without-sidebar");

function closeDrawer({ focus = false } = {}) {
  if (wide.matches || !sidebarOpen()) return;
  setSidebar(false);
  if (focus) toggle.focus();
}

export function initSidebar(announce, complaint) {
  [say, complain] = [announce, complaint];
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(refreshList, TYPING_MS);
  });
  more.addEventListener("click", older);
  byId("new-conversation").addEventListener("click", () => { newConversation(); byId("message").focus(); });
  byId("export-all").addEventListener("click", () => download("/api/export", "conversations.json"));
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", (event) => importFile(event.target));
  toggle.addEventListener("click", () => setSidebar(!sidebarOpen()));
  shade.addEventListener("click", () => closeDrawer({ focus: true }));
  sidebar.addEventListener("keydown", (event) => { if (event.key === "Escape") closeDrawer({ focus: true }); });
  wide.addEventListener("change", () => setSidebar(wide.matches));
  let soon = 0;
  const later = () => { clearTimeout(soon); soon = setTimeout(refreshList, TYPING_MS); };
  onOthers(later);
  on("opened", markCurrent);
  on("title", later);
  setSidebar(wide.matches);
  return later;
}

function markCurrent() {
  for (const link of list.querySelectorAll("a")) {
    if (link.parentElement.dataset.id === conversation.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
