// How answers are made: model, system prompt and sampling; kept with each conversation, and in this browser for new ones.

import { get } from "./api.js";
import { conversation, on, saveSettings } from "./state.js";

const KEPT = "llamaherd.settings";
const RETRY_MS = 3000;
const LARGEST_SEED = 2 ** 53 - 1; // beyond it, numbers are no longer exact here
const DICE_SEEDS = 2 ** 31;
const MOST_STOPS = 16;
const MOST_STOP_CHARACTERS = 256;
const TAGS = ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"];
const ALTERNATIVES = 5;

export const DEFAULTS = Object.freeze({
  model: "", system: "", temperature: 0.6, top_p: 0.9, top_k: 0, min_p: 0, repetition_penalty: 1, max_tokens: null, stop: [], seed: null,
});

/** What can be chosen as a number: [name, words, least, most, whole, step, help]. `open`: least itself is not allowed. */
const NUMBERS = [
  { name: "temperature", words: "Temperature", least: 0, most: 100, step: 0.05, help: "0 always takes the likeliest token; higher is more varied." },
  { name: "top_p", words: "Top-p", least: 0, most: 1, open: true, step: 0.05, help: "Only the likeliest tokens that together have this probability; 1 keeps all." },
  { name: "top_k", words: "Top-k", least: 0, most: 1_000_000, whole: true, step: 1, help: "Only so many of the likeliest tokens; 0 keeps all." },
  { name: "min_p", words: "Min-p", least: 0, most: 1, step: 0.01, help: "Only tokens at least this probable, measured by the likeliest one; 0 keeps all." },
  { name: "repetition_penalty", words: "Repetition penalty", least: 0, most: 100, open: true, step: 0.05, help: "Above 1, what was said already becomes less likely; 1 changes nothing." },
  { name: "max_tokens", words: "Most tokens of an answer", least: 1, most: 1_000_000, whole: true, optional: true, step: 1, help: "Empty: as many as the server allows." },
  { name: "seed", words: "Seed", least: -LARGEST_SEED, most: LARGEST_SEED, whole: true, optional: true, step: 1, help: "The same seed gives the same answer again; empty: a new one each time." },
];

let settings = { ...DEFAULTS };
let known = [];
let loaded = null;
const listeners = new Set();
const selects = new Set();

// --- what is set -----------------------------------------------------------------------------------------------------------------

/** All settings. */
export const current = () => ({ ...settings, stop: [...settings.stop] });

/** Those that the body of a chat completion has. */
export function fields() {
  const { system, stop, max_tokens, seed, ...rest } = settings;
  const chosen = { ...rest, logprobs: true, top_logprobs: ALTERNATIVES };
  if (stop.length) chosen.stop = [...stop];
  if (max_tokens !== null) chosen.max_tokens = max_tokens;
  if (seed !== null) chosen.seed = seed;
  return chosen;
}

/** Models that answer, as the server lists them; reward models are none. */
export const models = () => known;

/** `listener(current())` after every change. */
export const onChange = (listener) => listeners.add(listener);

/** Takes a conversation's settings, or this browser's where it has none. */
export function load(found) {
  settings = { ...DEFAULTS, ...defaults(), ...onlyKnown(found) };
  changed();
}

/** Why nothing can be sent with these settings, in words; null when it can. */
export function problem(of = settings) {
  if (!known.length) return loaded === "none" ? "The server has no model to talk to." : "The list of models is still being fetched.";
  if (!known.some(({ id }) => id === of.model)) return `The model “${of.model}” is not served here; choose another one.`;
  const [first] = Object.values(complaints(of));
  return first ?? null;
}

/** What is wrong with each setting, in words, by its name. */
export function complaints(of) {
  const found = {};
  for (const field of NUMBERS) {
    const said = complaint(field, of[field.name]);
    if (said) found[field.name] = said;
  }
  const tag = TAGS.find((one) => of.system.includes(one));
  if (tag) found.system = `The system prompt contains ${tag}, which belongs to the chat format; take it out.`;
  if (of.stop.length > MOST_STOPS) found.stop = `There are ${of.stop.length} stop texts; at most ${MOST_STOPS} are allowed.`;
  const long = of.stop.find((one) => [...one].length > MOST_STOP_CHARACTERS);
  if (long) found.stop = `A stop text has ${[...long].length} characters; at most ${MOST_STOP_CHARACTERS} are allowed.`;
  return found;
}

function complaint({ words, least, most, open, whole, optional }, value) {
  if (value === null && optional) return null;
  const range = `${open ? "above" : "from"} ${least.toLocaleString("en")} to ${most.toLocaleString("en")}`;
  const wanted = `${words} is a ${whole ? "whole number" : "number"} ${range}${optional ? ", or empty" : ""}`;
  if (typeof value !== "number" || !Number.isFinite(value)) return `${wanted}.`;
  const outside = value < least || value > most || (open && value === least) || (whole && !Number.isInteger(value));
  return outside ? `${wanted}; ${value.toLocaleString("en", { maximumFractionDigits: 6 })} is not.` : null;
}

/** Of what was stored or imported, only settings that exist, and of the right kind. */
function onlyKnown(found) {
  const kept = {};
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = found?.[name];
    const number = NUMBERS.some((field) => field.name === name);
    const fits = Array.isArray(standard)
      ? Array.isArray(value) && value.every((one) => typeof one === "string")
      : number ? typeof value === "number" || (value === null && standard === null) : typeof value === typeof standard;
    if (fits) kept[name] = value;
  }
  return kept;
}

function defaults() {
  try {
    return onlyKnown(JSON.parse(localStorage.getItem(KEPT)));
  } catch {
    return {};
  }
}

function keepAsDefaults(of) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(of));
  } catch {
    // the browser keeps nothing: then it is for this visit only
  }
}

function changed() {
  if (known.length && !settings.model) settings.model = known[0].id;
  selects.forEach(showModels);
  listeners.forEach((listener) => listener(current()));
}

function choose(chosen) {
  settings = { ...settings, ...chosen };
  saveSettings(current());
  changed();
}

// --- models ----------------------------------------------------------------------------------------------------------------------

/** Fetches the list of models, again and again while the server does not answer; resolves after the first attempt. */
export async function initSettings() {
  load(conversation.settings);
  on("opened", () => load(conversation.settings));
  await fetchModels();
}

let again = 0;

/** Reads the list of models anew: a server that was started again may have others. */
export async function fetchModels() {
  clearTimeout(again);
  try {
    known = (await get("/v1/models")).data.filter(answers);
    loaded = known.length ? "some" : "none";
    const kept = defaults().model;
    if (!conversation.settings?.model && kept && !known.some(({ id }) => id === settings.model)) settings.model = "";
    changed();
  } catch {
    again = setTimeout(fetchModels, RETRY_MS);
  }
}

const answers = ({ kind, type }) => ![kind, type].some((said) => /reward|moderation/.test(said ?? ""));

/** A list to choose the model from, which stays in step with the settings. */
export function modelSelect() {
  const select = document.createElement("select");
  select.ariaLabel = "Model";
  select.addEventListener("change", () => {
    keepAsDefaults({ ...defaults(), model: select.value });
    choose({ model: select.value });
  });
  selects.add(select);
  showModels(select);
  return select;
}

function showModels(select) {
  fillModels(select, settings.model);
}

/** The models as options of `select`, `chosen` among them even if it is not served any more. */
export function fillModels(select, chosen) {
  const options = known.map(({ id, root }) => new Option(root && root !== id ? `${id} (adapter on ${root})` : id, id));
  if (chosen && !known.some(({ id }) => id === chosen)) options.push(new Option(`${chosen} (not served)`, chosen));
  if (!options.length) options.push(new Option("no model yet", ""));
  select.replaceChildren(...options);
  select.value = chosen || options[0].value;
}

// --- the dialog ------------------------------------------------------------------------------------------------------------------

/** Shows the settings to change. */
export function openSettings() {
  const dialog = document.getElementById("settings-dialog");
  const form = document.createElement("form");
  form.className = "settings";
  form.noValidate = true;
  form.method = "dialog";
  form.append(heading(), modelField(), systemField(), numberFields(), stopField(), defaultsBox(), buttons(dialog));
  put(form, settings);
  form.addEventListener("input", () => complain(form, false));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (complain(form, true)) return;
    const chosen = read(form);
    if (form.elements.keep.checked) keepAsDefaults(chosen);
    choose(chosen);
    dialog.close();
  });
  dialog.replaceChildren(form);
  if (!dialog.open) dialog.showModal();
}

function heading() {
  return element("h2", { textContent: "Settings" });
}

function labelled(name, words, input, help) {
  const box = element("div", { className: "field" });
  Object.assign(input, { name, id: `setting-${name}` });
  const label = element("label", { textContent: words, htmlFor: input.id });
  const helped = element("p", { className: "help", id: `help-${name}`, textContent: help });
  const wrong = element("p", { className: "problem", id: `problem-${name}`, hidden: true });
  input.setAttribute("aria-describedby", `${helped.id} ${wrong.id}`);
  box.append(label, input, helped, wrong);
  return box;
}

function modelField() {
  const select = element("select");
  fillModels(select, settings.model);
  return labelled("model", "Model", select, "");
}

function systemField() {
  const help = "Said to the model before the conversation: who it is and how it is to answer.";
  return labelled("system", "System prompt", element("textarea", { rows: 3, dir: "auto" }), help);
}

function numberFields() {
  const grid = element("div", { className: "fields" });
  for (const { name, words, least, most, step, whole, help } of NUMBERS) {
    const input = element("input", { type: "number", step: whole ? 1 : step, inputMode: whole ? "numeric" : "decimal" });
    if (name !== "seed") Object.assign(input, { min: least, max: most });
    const field = labelled(name, words, input, help);
    if (name === "seed") addDice(input);
    grid.append(field);
  }
  return grid;
}

function addDice(input) {
  const row = element("div", { className: "with-button" });
  const dice = element("button", { type: "button", textContent: "⚄", ariaLabel: "Roll a seed", title: "Roll a seed", className: "icon" });
  dice.addEventListener("click", () => {
    input.value = crypto.getRandomValues(new Uint32Array(1))[0] % DICE_SEEDS;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  input.replaceWith(row);
  row.append(input, dice);
}

function stopField() {
  const help = "One a line; the answer ends before the first of them. \\n stands for a line end, \\\\ for a backslash.";
  return labelled("stop", "Stop texts", element("textarea", { rows: 2, spellcheck: false }), help);
}

function defaultsBox() {
  const label = element("label", { className: "check" });
  label.append(element("input", { type: "checkbox", name: "keep", checked: true }), "Use these for new conversations too");
  return label;
}

function buttons(dialog) {
  const row = element("div", { className: "row end" });
  const reset = element("button", { type: "button", textContent: "Reset to defaults" });
  reset.addEventListener("click", () => {
    put(reset.form, { ...DEFAULTS, model: reset.form.elements.model.value });
    complain(reset.form, false);
  });
  const cancel = element("button", { type: "button", textContent: "Cancel" });
  cancel.addEventListener("click", () => dialog.close());
  row.append(reset, cancel, element("button", { textContent: "Save", className: "primary" }));
  return row;
}

function put(form, of) {
  for (const { name } of NUMBERS) form.elements[name].value = of[name] ?? "";
  form.elements.system.value = of.system;
  form.elements.stop.value = of.stop.map((one) => one.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")).join("\n");
  form.elements.model.value = of.model;
}

function read(form) {
  const chosen = { model: form.elements.model.value, system: form.elements.system.value };
  for (const { name } of NUMBERS) {
    const input = form.elements[name];
    // a number field is empty, too, where what was typed is no number
    chosen[name] = input.validity.badInput ? NaN : input.value.trim() === "" ? null : Number(input.value);
  }
  const unescaped = (line) => line.replace(/\\(\\|n)/g, (_, sign) => (sign === "n" ? "\n" : sign));
  chosen.stop = form.elements.stop.value.split("\n").filter(Boolean).map(unescaped);
  return chosen;
}

/** Says beside each field what is wrong with it. Returns whether anything is. */
function complain(form, focus) {
  const found = complaints(read(form));
  let first = null;
  for (const name of ["system", ...NUMBERS.map((field) => field.name), "stop"]) {
    const input = form.elements[name];
    const wrong = form.querySelector(`#problem-${name}`);
    wrong.textContent = found[name] ?? "";
    wrong.hidden = !found[name];
    input.setAttribute("aria-invalid", String(Boolean(found[name])));
    if (found[name]) first ??= input;
  }
  if (focus) first?.focus();
  return first !== null;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
