// The list of messages: shows a path, renders only what is near the screen, and stays at the end only while the reader does.

import { answering, isStreaming, onChat, regenerate } from "./chat.js";
import { MessageView } from "./message.js";
import { leaf, on, path } from "./state.js";

const NEAR = "900px 0px";
const AT_END_PX = 4;
const FILL_MS = 6;

const log = document.getElementById("conversation");
const list = document.getElementById("messages");
const newest = document.getElementById("newest");
const unanswered = document.getElementById("unanswered");
const welcome = document.getElementById("welcome");
const views = new Map();
const changed = new Set();
let say = () => {};
let sticks = true;
let lastTop = 0;
let lastHeight = 0;
let frame = 0;
let filling = 0;

export const viewOf = (id) => views.get(id);
export const shownIds = () => [...list.children].map((element) => element.dataset.id);

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    views.get(target.dataset.id)?.render();
  }
}, { root: log, rootMargin: NEAR });

/** Shows the present path: what stays the same stays as it is. */
function show({ anew = false } = {}) {
  const nodes = path();
  if (anew) {
    near.disconnect();
    views.clear();
    list.replaceChildren();
    sticks = true;
  }
  let same = 0;
  const shown = list.children;
  while (same < nodes.length && shown[same]?.dataset.id === nodes[same].id && views.get(nodes[same].id).node === nodes[same]) same += 1;
  const focus = heldFocus();
  while (shown.length > same) {
    const gone = list.lastElementChild;
    near.unobserve(gone);
    views.delete(gone.dataset.id);
    gone.remove();
  }
  const added = document.createDocumentFragment();
  for (const one of nodes.slice(same)) {
    const view = new MessageView(one, say);
    views.set(one.id, view);
    added.append(view.element);
    near.observe(view.element);
  }
  list.append(added);
  for (const one of nodes.slice(0, same)) views.get(one.id).update();
  for (const one of nodes.slice(-2)) views.get(one.id).render(); // what is being worked with never waits to be seen
  welcome.hidden = nodes.length > 0;
  focus?.();
  showUnanswered();
  cancelIdleCallback_(filling);
  filling = requestIdleCallback_(fillSome);
  if (sticks) toEnd();
}

/** Whoever steps through the versions of a message stays at its arrows, though every step puts another message there. */
function heldFocus() {
  const held = document.activeElement;
  const at = [...list.children].indexOf(held?.closest?.(".message"));
  if (at < 0) return null;
  const { act } = held.dataset;
  return () => {
    if (document.contains(document.activeElement) && document.activeElement !== document.body) return;
    const view = views.get(list.children[Math.min(at, list.children.length - 1)]?.dataset.id);
    view?.render();
    const other = { previous: "next", next: "previous" }[act];
    const found = [act, other].map((name) => view?.element.querySelector(`[data-act="${name}"]:not(:disabled)`)).find(Boolean);
    (found ?? view?.element)?.focus({ preventScroll: true });
  };
}

const requestIdleCallback_ = window.requestIdleCallback ?? ((run) => setTimeout(run, 50));
const cancelIdleCallback_ = window.cancelIdleCallback ?? clearTimeout;

/** Text of everything that is shown, a little at a time: for the browser's own search and for screen readers. */
function fillSome() {
  const until = performance.now() + FILL_MS;
  for (const view of views.values()) {
    if (view.step > 0) continue;
    view.fill();
    if (performance.now() > until) {
      filling = requestIdleCallback_(fillSome);
      return;
    }
  }
}

/** A last message of the user that nobody answers: says so, and offers to ask. */
function showUnanswered() {
  const last = leaf();
  const wanted = last?.role === "user" && !answering();
  if (wanted && unanswered.dataset.id !== last.id) {
    const ask = document.createElement("button");
    ask.type = "button";
    ask.textContent = "Answer it";
    ask.addEventListener("click", () => regenerate(last.id));
    unanswered.replaceChildren("This message has no answer yet.", ask);
    unanswered.dataset.id = last.id;
  }
  unanswered.hidden = !wanted;
}

export function toEnd({ smooth = false } = {}) {
  sticks = true;
  newest.hidden = true;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  log.scrollTo({ top: log.scrollHeight, behavior: smooth && !still ? "smooth" : "instant" });
  lastTop = log.scrollTop;
  lastHeight = log.scrollHeight;
}

const away = () => log.scrollHeight - log.scrollTop - log.clientHeight;

/** Going up by any distance leaves the end, and only going back down to it takes it up again: whoever reads is never moved. */
function scrolled() {
  const shrank = log.scrollHeight < lastHeight;
  if (log.scrollTop < lastTop && !shrank) sticks = false;
  else if (away() <= AT_END_PX) sticks = true;
  lastTop = log.scrollTop;
  lastHeight = log.scrollHeight;
  newest.hidden = sticks || away() <= AT_END_PX;
}

function grew() {
  if (sticks) toEnd();
  else newest.hidden = away() <= AT_END_PX;
}

/** All that changed since the last picture, once for each picture. */
function draw() {
  frame = 0;
  for (const id of changed) {
    const view = views.get(id);
    if (isStreaming(view?.node ?? {})) view.render();
    view?.update();
  }
  changed.clear();
}

function note(id) {
  changed.add(id);
  frame ||= requestAnimationFrame(draw);
}

/** Moves the focus from message to message. */
export function focusMessage(by) {
  const shown = [...list.children];
  const at = shown.indexOf(document.activeElement?.closest?.(".message"));
  const next = shown[at < 0 ? shown.length - 1 : Math.min(shown.length - 1, Math.max(0, at + by))];
  views.get(next?.dataset.id)?.render();
  next?.focus();
}

export function initThread(announce) {
  say = announce;
  on("opened", () => show({ anew: true }));
  on("path", () => show());
  on("node", ({ node }) => note(node.id));
  onChat("stream", () => {
    showUnanswered();
    const last = leaf();
    if (last) note(last.id);
  });
  log.addEventListener("scroll", scrolled, { passive: true });
  log.addEventListener("wheel", (event) => { if (event.deltaY < 0 && log.scrollTop > 0) sticks = false; }, { passive: true });
  newest.addEventListener("click", () => { toEnd({ smooth: true }); log.focus({ preventScroll: true }); });
  new ResizeObserver(grew).observe(list);
  new ResizeObserver(grew).observe(log);
  show({ anew: true });
}
