// The page of a domain's process: what it recommends to its own users, and why.
import { get, post } from "../static/api.js";
import { byId, fill, h, settled } from "../static/dom.js";
import { head } from "../static/head.js";
import { listen } from "../static/live.js";
import { complain, notice } from "../static/notices.js";
import { loadWords, named, number, onLanguage, t } from "../static/words.js";
import * as history from "./history.js";
import { knobsForm } from "./knobs.js";
import * as list from "./list.js";
import * as map from "./map.js";
import { person, personForm } from "./person.js";
import * as privacy from "./privacy.js";
import * as safety from "./safety.js";

let about = null;
const form = {};

async function start() {
  await loadWords("../static/words.json", "words.json");
  try {
    about = await get("about");
  } catch (error) {
    return complain(error);
  }
  form.knobs = knobsForm(about.attributes, list.refresh);
  form.person = personForm(someoneElse);
  history.historyOf(form.knobs.only);
  list.listOf({ did, only: form.knobs.only });
  map.mapView();
  privacy.privacyView();
  safety.safetyView();
  head({ map: map.open, privacy: privacy.open, safety: safety.open });
  onLanguage(sayAbout);
  sayAbout();
  follow();
}

function sayAbout() {
  const { domain, items, users, interactions, model } = about;
  byId("domain").textContent = `· ${domain}`;
  document.title = `${domain} · Isthmus`;
  byId("foot").textContent = t("foot", { items: number(items), users: number(users), interactions: number(interactions), model });
  const chosen = byId("behaviour").value || "view";
  fill(byId("behaviour"), about.behaviours.map((one) => h("option", { value: one, selected: one === chosen }, named("behaviour", one))));
}

function someoneElse() {
  byId("did-as").hidden = person.mode !== "user";
  list.clear();
  history.clear();
}

/** An event of the user who is open; a told history just grows. */
async function did(item) {
  if (person.mode === "told") return form.person.add({ words: item.item_id, label: item.title });
  try {
    await post("events", { events: [{ user: person.user, item: item.item_id, behavior: byId("behaviour").value }] });
  } catch (error) {
    return complain(error);
  }
  notice(t("did.done", { title: item.title }));
  await Promise.all([list.refresh(), history.refresh()]);
}

/** Whatever came in, from here or elsewhere, may have changed what is shown. */
function follow() {
  const again = settled(() => Promise.all([list.refresh(), history.refresh()]), 400);
  const afresh = async () => {
    about = await get("about").catch(() => about);
    sayAbout();
    again();
  };
  listen({
    events: again,
    feedback: ({ what }) => what !== "why" && again(),
    decision: again,
    items: afresh,
    model: ({ model }) => {
      notice(t("model.new", { model }));
      afresh();
    },
  });
}

start();
