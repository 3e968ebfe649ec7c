// The list itself: items, their reasons, and what may be done about each.
import { post } from "../static/api.js";
import { card } from "../static/card.js";
import { byId, empty, fill, h, skeleton } from "../static/dom.js";
import { openItem } from "../static/item.js";
import { complain, notice, trouble } from "../static/notices.js";
import { number, onLanguage, t } from "../static/words.js";
import { openWhy } from "../static/why.js";
import { wish } from "./knobs.js";
import { person, who } from "./person.js";

const PAGE = 10;
const MOST = 1000;
const shown = { items: [], more: false, struck: 0, model: "", trouble: null, waiting: false };
let asked = 0;
let acts = {};

/** ``actions``: did(item), only(column, value). */
export function listOf(actions) {
  acts = actions;
  onLanguage(show);
  show();
}

/** Asks again from the top, as many as are shown. */
export async function refresh() {
  const asker = who();
  if (!asker) {
    asked++;
    Object.assign(shown, { items: [], more: false, struck: 0, trouble: null, waiting: false });
    return show();
  }
  return ask(asker, 0, Math.max(PAGE, shown.items.length));
}

/** Another person: nothing of the one before stays. */
export function clear() {
  Object.assign(shown, { items: [], more: false, struck: 0, trouble: null });
  return refresh();
}

async function ask(asker, skip, k) {
  const mine = ++asked;
  shown.waiting = true;
  show();
  try {
    const without = [...person.hidden];
    const found = await post("recommend", { ...asker, ...wish(), without, skip, k: Math.min(k, MOST), reasons: 2 });
    if (mine !== asked) return;
    const before = skip ? shown.items : [];
    Object.assign(shown, { items: [...before, ...found.items], more: found.more, struck: found.struck, model: found.model, trouble: null });
  } catch (error) {
    if (mine !== asked) return;
    Object.assign(shown, { items: [], more: false, struck: 0, trouble: error });
  }
  shown.waiting = false;
  show();
}

function show() {
  const place = byId("list");
  place.setAttribute("aria-busy", String(shown.waiting));
  place.classList.toggle("waiting", shown.waiting && shown.items.length > 0);
  byId("list-note").textContent = said();
  if (shown.trouble) return fill(place, trouble(shown.trouble));
  if (shown.items.length) return fill(place, h("ol.cards", {}, shown.items.map(shownAs)), foot());
  if (shown.waiting) return fill(place, skeleton());
  if (who()) return fill(place, empty(t("list.none"), t("list.none.advice")));
  return fill(place, empty(t("list.nobody"), t("list.nobody.advice")));
}

function said() {
  if (!shown.items.length || shown.trouble) return "";
  const parts = [t("list.count", { n: number(shown.items.length), model: shown.model })];
  if (shown.struck) parts.push(t("list.struck", { n: number(shown.struck) }));
  return parts.join(" ");
}

function foot() {
  if (!shown.more || shown.items.length >= MOST) return null;
  const more = () => ask(who(), shown.items.length, PAGE);
  return h("div.more", {}, h("button", { type: "button", "data-focus": "more", onclick: more }, t("more")));
}

function shownAs(item, at) {
  const buttons = [
    ["did", "", () => acts.did(item)],
    ["why", "", () => why(item)],
    ["hide", "", () => judge(item, "hide")],
    ...(person.mode === "user" ? [["harmful", ".warn", () => judge(item, "harmful")]] : []),
  ];
  return card(item, at, () => openItem(null, item.item_id, acts.only), buttons);
}

/** Hidden at once, whatever else is on its way. A told history belongs to nobody: only this list changes then. */
async function judge(item, what) {
  try {
    if (person.mode === "user") await post("feedback", { user: person.user, item: item.item_id, what });
    else person.hidden.add(item.item_id);
  } catch (error) {
    return complain(error);
  }
  notice(t(person.mode === "user" ? `${what}.done` : "hide.told", { title: item.title }));
  await refresh();
}

function why(item) {
  // That somebody asked is worth knowing to whoever audits; the answer does not wait for it.
  if (person.mode === "user") post("feedback", { user: person.user, item: item.item_id, what: "why" }).catch(complain);
  openWhy(item.title, { ...who(), item: item.item_id });
}
