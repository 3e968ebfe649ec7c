// What the pages say, in the reader's language. One table a page: {"key": {"en": "...", "zh": "..."}}.
import { remembered, remember } from "./memory.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const TAGS = { en: "en", zh: "zh-Hans" };
const listeners = new Set();
let table = {};
let language = remembered("language", Object.keys(LANGUAGES)) ?? preferred();

function preferred() {
  return (navigator.languages ?? []).some((one) => /^(zh|en)/i.test(one))
    ? navigator.languages.find((one) => /^(zh|en)/i.test(one)).slice(0, 2).toLowerCase()
    : "en";
}

export const spoken = () => language;

/** Reads the tables at these addresses; later ones may not take a key of earlier ones. */
export async function loadWords(...addresses) {
  const parts = await Promise.all(addresses.map(async (one) => (await fetch(one)).json()));
  table = Object.assign({}, ...parts);
  translate();
}

/** The words for a key, {name} replaced by its value. */
export function t(key, values = {}) {
  const words = table[key]?.[language] ?? key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** The words for a key where the table has it, else what is given: for names that the server may add to. */
export const named = (prefix, name) => (`${prefix}.${name}` in table ? t(`${prefix}.${name}`) : name);

export const number = (value, most = 0, least = most) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: most, minimumFractionDigits: least }).format(value);

/** Three digits that matter: 0.0123, 1.23, 12,300. */
export const figure = (value) => new Intl.NumberFormat(language, { maximumSignificantDigits: 3 }).format(value);

export const percent = (value, most = 0) =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: most }).format(value);

export const moment = (seconds) =>
  new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(seconds * 1000));

/** 1,234,567 bytes as 1.2 MB. */
export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(count, 1)) / 3));
  const style = { style: "unit", unit: units[step], unitDisplay: "short", maximumSignificantDigits: 3 };
  return new Intl.NumberFormat(language, style).format(count / 1000 ** step);
}

/** The words of elements that carry their key: data-t for the text, data-t-ATTRIBUTE for an attribute. */
export function translate(root = document) {
  document.documentElement.lang = TAGS[language];
  for (const one of root.querySelectorAll("[data-t]")) one.textContent = t(one.dataset.t);
  for (const name of ["placeholder", "aria-label"]) {
    for (const one of root.querySelectorAll(`[data-t-${name}]`)) {
      one.setAttribute(name, t(one.getAttribute(`data-t-${name}`)));
    }
  }
}

/** Calls back whenever the language changes. */
export const onLanguage = (listener) => listeners.add(listener);

export function speak(chosen) {
  language = chosen;
  remember("language", chosen);
  translate();
  for (const listener of listeners) listener();
}
