// What a user met, newest first. Of a told history the form itself shows it.
import { post } from "../static/api.js";
import { byId, empty, fill, h } from "../static/dom.js";
import { openItem } from "../static/item.js";
import { trouble } from "../static/notices.js";
import { named, number, onLanguage, t } from "../static/words.js";
import { person } from "./person.js";

const PAGE = 20;
const shown = { events: [], total: 0, trouble: null };
let asked = 0;
let only = () => {};

export function historyOf(filter) {
  only = filter;
  onLanguage(show);
}

/** Reads it afresh, as much as is shown. */
export async function refresh() {
  const mine = ++asked;
  const user = person.mode === "user" ? person.user : "";
  byId("history-panel").hidden = !user;
  if (!user) return;
  await read(mine, user, 0, Math.max(PAGE, shown.events.length));
}

export function clear() {
  Object.assign(shown, { events: [], total: 0, trouble: null });
  show();
  return refresh();
}

async function read(mine, user, skip, k) {
  try {
    const found = await post("history", { user, skip, k });
    if (mine !== asked) return;
    Object.assign(shown, { events: [...shown.events.slice(0, skip), ...found.events], total: found.total, trouble: null });
  } catch (error) {
    if (mine !== asked) return;
    Object.assign(shown, { events: [], total: 0, trouble: error });
  }
  show();
}

function show() {
  const place = byId("history");
  // The list beside it says what is wrong; once is enough.
  byId("history-panel").hidden = Boolean(shown.trouble?.status === 404) || person.mode !== "user" || !person.user;
  if (shown.trouble) return fill(place, trouble(shown.trouble));
  if (!shown.events.length) return fill(place, empty(t("history.none")));
  const more = () => read(++asked, person.user, shown.events.length, PAGE);
  fill(
    place,
    h("p.small.muted", {}, t("history.count", { n: number(shown.events.length), total: number(shown.total) })),
    h("ol.events", {}, shown.events.map(line)),
    shown.events.length < shown.total
      ? h("div.more", {}, h("button.small", { type: "button", "data-focus": "more-history", onclick: more }, t("more")))
      : null,
  );
}

const line = (event, at) =>
  h(
    "li",
    {},
    h("button.link", { type: "button", "data-focus": `event-${at}`, onclick: () => openItem(null, event.item_id, only) }, event.title),
    h("span.tag", {}, named("behaviour", event.behavior)),
  );
