// Somebody's likes, in any domain or in plain words, and what every domain would recommend. Nothing is kept.
import { get, post } from "../static/api.js";
import { card } from "../static/card.js";
import { byId, empty, fill, h, settled, skeleton } from "../static/dom.js";
import { finder } from "../static/finder.js";
import { openItem } from "../static/item.js";
import { trouble } from "../static/notices.js";
import { onLanguage, t } from "../static/words.js";
import { openWhy } from "../static/why.js";
import { knobs, showKnobs } from "./knobs.js";

const PAGE = 5;
const MOST = 1000;
const SUGGESTED = 3; // of each domain
const state = { domains: [], liked: [], hidden: new Set(), found: null, trouble: null, waiting: false, counts: {} };
let asked = 0;

export function view(domains) {
  state.domains = domains;
  finder(byId("liked"), search, like);
  byId("taste").addEventListener("submit", (event) => event.preventDefault());
  byId("order").addEventListener("change", show);
  const build = () => {
    showKnobs(state.domains, settled(ask));
    showLiked();
    show();
  };
  onLanguage(build);
  build();
}

/** The catalogues may have grown, the model may be another one. */
export function served(domains) {
  state.domains = domains;
  return ask();
}

const event = (one) => (one.item ? { domain: one.domain, item: one.item } : { text: one.words });

async function search(words) {
  const query = encodeURIComponent(words);
  const each = state.domains.map(({ name }) => get(`items?domain=${encodeURIComponent(name)}&k=${SUGGESTED}&query=${query}`));
  const items = (await Promise.all(each)).flatMap((page) => page.items);
  return items.map((one) => ({ label: one.title, detail: one.domain, value: { domain: one.domain, item: one.item_id, words: one.title } }));
}

function like(one) {
  state.liked.push(one);
  showLiked();
  return ask();
}

function showLiked() {
  const drop = (at) => {
    state.liked.splice(at, 1);
    showLiked();
    byId("liked").focus();
    ask();
  };
  const chip = (one, at) =>
    h("li.chip", {}, h("span", { title: one.words }, one.words), one.domain ? h("small", {}, one.domain) : null, h("button", { type: "button", "aria-label": t("liked.remove", { title: one.words }), onclick: () => drop(at) }, "×"));
  fill(byId("liked-list"), state.liked.map(chip));
}

async function ask() {
  const mine = ++asked;
  if (!state.liked.length) {
    Object.assign(state, { found: null, trouble: null, waiting: false, counts: {} });
    state.hidden.clear();
    return show();
  }
  state.waiting = true;
  show();
  try {
    const most = Math.max(PAGE, ...Object.values(state.counts));
    const found = await post("recommend", { history: state.liked.map(event), ...knobs(state.domains), without: [...state.hidden], k: most, reasons: 2 });
    if (mine !== asked) return;
    Object.assign(state, { found, trouble: null });
  } catch (error) {
    if (mine !== asked) return;
    Object.assign(state, { found: null, trouble: error });
  }
  state.waiting = false;
  show();
}

const mixed = () => document.querySelector("#order :checked").value === "mixed";

function show() {
  const place = byId("answers");
  place.setAttribute("aria-busy", String(state.waiting));
  place.classList.toggle("waiting", state.waiting && state.found !== null);
  byId("answers-note").textContent = state.found && !state.trouble ? t("answers.note", { model: state.found.model }) : "";
  if (!state.domains.length) return fill(place, empty(t("catalogue.none"), t("catalogue.none.advice")));
  if (state.trouble) return fill(place, trouble(state.trouble));
  if (!state.found) return fill(place, state.waiting ? skeleton() : empty(t("answers.none"), t("answers.none.advice")));
  if (mixed()) return fill(place, h("ol.cards", {}, state.found.blend.map((one, at) => shown({ ...one.item, rank: at + 1 }, one.domain, one.domain))));
  fill(place, h("div.domains", {}, state.found.answers.map(domain)));
}

function domain({ domain: name, items, more }) {
  const count = state.counts[name] ?? PAGE;
  const further = () => {
    state.counts[name] = Math.min(MOST, count + PAGE);
    ask();
  };
  const heading = h("header", {}, h("h3", {}, name));
  if (!items.length) return h("section.domain-answers", {}, heading, empty(t("answers.empty")));
  const button = h("button.small", { type: "button", "data-focus": `more-${name}`, "aria-label": `${t("more")}: ${name}`, onclick: further }, t("more"));
  const there = more || items.length > count;
  return h("section.domain-answers", {}, heading, h("ol.cards", {}, items.slice(0, count).map((one) => shown(one, name))), there && count < MOST ? h("div.more", {}, button) : null);
}

function shown(item, name, tag = null) {
  const leave = () => {
    state.hidden.add(item.item_id);
    ask();
  };
  const why = () => openWhy(item.title, { history: state.liked.map(event), domain: name, item: item.item_id });
  const buttons = [
    ["like", "", () => like({ domain: name, item: item.item_id, words: item.title })],
    ["why", "", why],
    ["leave", "", leave],
  ];
  return card(item, `${name}-${item.rank}`, () => openItem(name, item.item_id, null), buttons, tag);
}
