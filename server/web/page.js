// The page of the server: the federation at a glance, and its recommender to play with.
import { get } from "../static/api.js";
import { byId } from "../static/dom.js";
import { head } from "../static/head.js";
import { listen } from "../static/live.js";
import { complain, notice } from "../static/notices.js";
import { loadWords, number, onLanguage, t } from "../static/words.js";
import * as exposure from "./exposure.js";
import * as federation from "./federation.js";
import * as playground from "./playground.js";

let about = null;

async function start() {
  await loadWords("../static/words.json", "words.json");
  try {
    about = await get("about");
  } catch (error) {
    return complain(error);
  }
  federation.view();
  playground.view(about.domains);
  exposure.view();
  onLanguage(sayAbout);
  sayAbout();
  head({ federation: federation.open, exposure: exposure.open });
  follow();
}

function sayAbout() {
  byId("subject").textContent = `· ${t("subject")}`;
  document.title = `${t("subject")} · Isthmus`;
  const items = about.domains.reduce((sum, one) => sum + one.items, 0);
  byId("foot").textContent = t("foot", { domains: number(about.domains.length), items: number(items), model: about.model });
}

function follow() {
  const changed = async () => {
    about = await get("about").catch(() => about);
    sayAbout();
    playground.served(about.domains);
  };
  listen({
    round: ({ round }) => {
      notice(t("round.done", { round: number(round) }));
      federation.open();
    },
    members: federation.open,
    done: federation.open,
    failed: federation.open,
    model: changed,
    items: changed,
    exposure: exposure.counted,
  });
}

start();
