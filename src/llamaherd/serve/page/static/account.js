// Who uses the page: the name that the server knows, and a way out where it asks for keys. What one person left in this browser is
// not shown to the next.

import { getJson, gone, problemFrom } from "./api.js";
import { stopAll } from "./chat.js";
import { belongTo, flush, pending } from "./outbox.js";

const WHO = "llamaherd.who";
const RETURN = "llamaherd.return";
const OF_THE_BROWSER = new Set(["llamaherd.theme", WHO]);
const OUTBOX = "llamaherd.outbox.";

const box = document.getElementById("account");

/** Asks the server who this is. What could not be saved for somebody else stays kept, unseen, until that person comes back. */
export async function enter(complain) {
  let name = localStorage.getItem(WHO);
  try {
    const me = await getJson("/api/me");
    if (name !== null && name !== me.name) forget();
    name = me.name;
    localStorage.setItem(WHO, name);
    if (me.signed_in) show(name, complain);
  } catch (problem) {
    if (problem.kind === "key") complain(problem);
  }
  belongTo(name);
  const back = sessionStorage.getItem(RETURN);
  sessionStorage.removeItem(RETURN);
  if (back && !location.hash) history.replaceState(null, "", back);
}

/** To the form that asks for a key; afterwards the same conversation is opened again. */
export function signIn() {
  if (location.hash) sessionStorage.setItem(RETURN, location.hash);
  location.assign("/login");
}

function show(name, complain) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", id: "sign-out", textContent: "Sign out" });
  button.addEventListener("click", () => signOut().catch(complain));
  const words = document.createElement("span");
  words.append("Signed in as ", Object.assign(document.createElement("b"), { textContent: name }));
  box.replaceChildren(words, button);
  box.hidden = false;
}

/** Ends the session, once everything is saved. Throws Problem. */
async function signOut() {
  await stopAll();
  await flush();
  if (pending()) throw gone();
  let response;
  try {
    response = await fetch("/logout", { method: "POST", redirect: "manual" });
  } catch {
    throw gone();
  }
  if (response.type !== "opaqueredirect") throw problemFrom(response.status, await response.json().catch(() => null));
  forget();
  location.assign("/login");
}

/** Drafts and settings go; the theme belongs to the browser, and changes that wait to be saved to whoever made them. */
function forget() {
  const all = Object.keys(localStorage).filter((key) => key.startsWith("llamaherd."));
  for (const key of all) if (!OF_THE_BROWSER.has(key) && !key.startsWith(OUTBOX)) localStorage.removeItem(key);
}
