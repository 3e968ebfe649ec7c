// A field with suggestions (the combobox pattern of the ARIA practices): type, arrow down, Enter.
import { fill, h, settled } from "./dom.js";
import { complain } from "./notices.js";
import { t } from "./words.js";

let count = 0;

/**
 * Makes ``input`` suggest what ``search(words)`` finds: a promise of [{label, detail, value}].
 * ``chosen(value)`` gets the one that was taken, or {words} for text that was entered as it is.
 */
export function finder(input, search, chosen) {
  const id = `suggestions-${++count}`;
  const list = h("ul.suggestions", { id, role: "listbox", hidden: true, "aria-label": t("suggestions") });
  const place = h("div.finder");
  input.replaceWith(place);
  place.append(input, list);
  const aria = { role: "combobox", "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list", autocomplete: "off" };
  for (const [name, value] of Object.entries(aria)) input.setAttribute(name, value);
  let options = [];
  let active = -1;
  let asked = 0;

  const close = () => {
    asked++;
    options = [];
    active = -1;
    list.hidden = true;
    busy(false);
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const take = (value) => {
    input.value = "";
    close();
    chosen(value);
    input.focus();
  };
  const enter = () => {
    const words = input.value.trim();
    if (active >= 0) take(options[active].value);
    else if (words) take({ words });
  };
  const busy = (still) => list.setAttribute("aria-busy", String(still));
  const mark = (place) => {
    active = place;
    for (const [at, one] of [...list.children].entries()) one.setAttribute("aria-selected", String(at === active));
    if (active < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", `${id}-${active}`);
      list.children[active].scrollIntoView({ block: "nearest" });
    }
  };
  const look = settled(async () => {
    const words = input.value.trim();
    const mine = ++asked;
    if (!words) return close();
    let found;
    try {
      found = await search(words);
    } catch (error) {
      if (mine === asked) busy(false);
      return complain(error);
    }
    if (mine !== asked) return; // an older question, answered late
    const kept = active < 0 ? undefined : options[active].value; // chosen while this was asked
    options = found;
    busy(false);
    fill(list, found.map(shown));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(Boolean(found.length)));
    mark(found.findIndex((one) => JSON.stringify(one.value) === JSON.stringify(kept)));
  }, 150);
  const shown = (one, place) =>
    h(
      "li",
      { id: `${id}-${place}`, role: "option", "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); take(one.value); } },
      h("span", {}, one.label),
      one.detail ? h("small", {}, one.detail) : null,
    );

  input.addEventListener("input", () => {
    busy(true);
    look();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // an input method is choosing characters
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps && options.length) {
      event.preventDefault();
      mark(((active + 1 + steps[event.key] + options.length + 1) % (options.length + 1)) - 1);
    } else if (event.key === "Escape" && !list.hidden) {
      event.stopPropagation();
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      enter();
    }
  });
  return { enter };
}
