// For whom the list is: a user whose id the operator typed, or a history told here. Neither is kept anywhere.
import { byId, fill, h } from "../static/dom.js";
import { finder } from "../static/finder.js";
import { get } from "../static/api.js";
import { onLanguage, t } from "../static/words.js";

const SUGGESTED = 8;

export const person = { told: [], user: "", mode: "user", hidden: new Set() };

/** Who asks, as the API takes it; null while nobody was named. */
export function who() {
  if (person.mode === "user") return person.user ? { user: person.user } : null;
  return person.told.length ? { history: person.told.map((one) => one.words) } : null;
}

export const searchItems = async (words) => {
  const found = await get(`items?k=${SUGGESTED}&query=${encodeURIComponent(words)}`);
  return found.items.map((one) => ({ label: one.title, value: { words: one.item_id, label: one.title } }));
};

/** Wires the form; ``changed`` is called when another person is meant. */
export function personForm(changed) {
  const form = byId("who");
  const afresh = () => {
    person.hidden.clear();
    changed();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (person.mode === "user") {
      person.user = byId("user").value.trim();
      afresh();
    }
  });
  for (const radio of form.elements.who) {
    radio.addEventListener("change", () => {
      person.mode = form.elements.who.value;
      byId("who-user").hidden = person.mode !== "user";
      byId("who-told").hidden = person.mode === "user";
      afresh();
    });
  }
  const add = ({ words, label }) => {
    person.told.push({ words, label: label ?? words });
    showTold(afresh);
    changed();
  };
  finder(byId("told"), searchItems, add);
  onLanguage(() => showTold(afresh));
  return { add };
}

function showTold(changed) {
  const drop = (at) => {
    person.told.splice(at, 1);
    showTold(changed);
    changed();
    if (!document.activeElement || document.activeElement === document.body) byId("told").focus();
  };
  const chips = person.told.map((one, at) =>
    h("li.chip", {}, h("span", { title: one.label }, one.label), h(
      "button",
      { type: "button", "data-focus": `told-${at}`, "aria-label": t("told.remove", { title: one.label }), onclick: () => drop(at) },
      "×",
    )),
  );
  fill(byId("told-list"), chips);
}
