// The head of both pages: which view is open, the language, the look.
import { byId, h } from "./dom.js";
import { LOOKS, look, wear } from "./look.js";
import { LANGUAGES, onLanguage, speak, spoken, t } from "./words.js";

/** Fills the switches and opens the view that the address names. ``opened[name]`` is called each time one opens. */
export function head(opened) {
  fillSwitches();
  onLanguage(fillSwitches);
  byId("language").addEventListener("change", (event) => speak(event.target.value));
  byId("look").addEventListener("change", (event) => wear(event.target.value));
  addEventListener("hashchange", () => open(opened, true));
  open(opened, false);
}

function fillSwitches() {
  const option = (value, words, chosen) => h("option", { value, selected: value === chosen }, words);
  byId("language").replaceChildren(
    ...Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code, selected: code === spoken() }, name)),
  );
  byId("look").replaceChildren(...LOOKS.map((one) => option(one, t(`look.${one}`), look())));
}

function open(opened, moved) {
  const links = [...document.querySelectorAll("nav a")];
  const names = links.map((link) => link.hash.slice(1));
  const asked = location.hash.slice(1);
  if (moved && asked && !names.includes(asked)) return; // the skip link: a place in the view that is open
  const name = names.includes(asked) ? asked : names[0];
  for (const link of links) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const view of document.querySelectorAll("main > .view")) view.hidden = view.dataset.view !== name;
  opened[name]?.();
  if (moved) document.querySelector(`.view[data-view="${name}"] h2`)?.focus();
}
