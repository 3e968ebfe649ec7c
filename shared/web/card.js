// An item of a list, with its reasons and what may be done about it.
import { h } from "./dom.js";
import { number, t } from "./words.js";

/** ``key`` tells this list's cards from another's; ``buttons`` are [name, kind, act]; ``tag`` stands beside the title. */
export function card(item, key, openIt, buttons, tag = null) {
  return h(
    "li.card",
    { "data-item": item.item_id },
    h("span.rank", { "aria-hidden": "true" }, number(item.rank)),
    h("h3", {}, h("button.link", { type: "button", "data-focus": `title-${key}`, onclick: openIt }, item.title), tag ? h("span.tag.beside", {}, tag) : null),
    h("span.score", { title: t("score.hint") }, number(item.score, 2)),
    because(item),
    h("div.actions", {}, buttons.map(([name, kind, act]) => button(item, key, name, kind, act))),
  );
}

function button(item, key, name, kind, act) {
  const label = `${t(name)}: ${item.title}`;
  return h(`button.quiet${kind}`, { type: "button", "data-focus": `${name}-${key}`, "aria-label": label, onclick: act }, t(name));
}

function because(item) {
  if (!item.because.length) return h("p.because", {}, t("because.most"));
  const titles = [...new Set(item.because.map((one) => one.title))];
  const [before, after] = t("because").split("{titles}");
  const listed = titles.flatMap((title, at) => [at ? t("because.and") : null, h("b", {}, title)]);
  return h("p.because", {}, before, listed, after);
}
