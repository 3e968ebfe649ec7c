// Why an item is recommended, as far as the process can say: events, words, ways over attributes, rules, likeness.
import { post } from "./api.js";
import { dialog } from "./dialog.js";
import { fill, h, skeleton } from "./dom.js";
import { trouble } from "./notices.js";
import { named, number, percent, t } from "./words.js";

const MOST = 6;

/** ``ask``: the item, and for whom, as the process takes it. */
export async function openWhy(title, ask) {
  const { body } = dialog(t("why.title", { title }));
  fill(body, skeleton(3));
  try {
    const found = await post("explain", { ...ask, most: MOST });
    fill(body, events(found.because), words("why.words", found.words), words("why.told", found.told), ways(found.paths), rules(found.rules), friends(found.friends), nearest(found.nearest), missing(found.missing));
  } catch (error) {
    fill(body, trouble(error));
  }
}

const part = (key, ...inside) => h("section", {}, h("h3", {}, t(key)), h("p.hint", {}, t(`${key}.hint`)), ...inside);

function events(because) {
  if (!because.length) return h("p", {}, t("because.most"));
  const most = Math.max(...because.map((one) => one.drop));
  const lines = because.map((one) => bar(one.title, `−${number(one.drop, 2)}`, one.drop / most));
  return part("why.events", h("ol.bars", {}, lines));
}

/** A line with a figure, and a bar that shows it as a part of the greatest. */
function bar(words, figure, share) {
  return h(
    "li",
    {},
    h("span", {}, words),
    h("span.number.muted", {}, figure),
    h("span.bar", { "aria-hidden": "true" }, h("i", { style: { "--part": Math.max(share, 0) } })),
  );
}

/** The text itself, each word marked as strongly as it weighs; the strongest once more in figures. */
function words(key, found) {
  if (!found?.words.length) return null;
  const most = Math.max(...found.words.map((one) => Math.abs(one.weight)), 1e-9);
  const pieces = [];
  let at = 0;
  for (const { word, weight } of found.words) {
    const next = found.text.indexOf(word, at);
    if (next > at) pieces.push(found.text.slice(at, next));
    pieces.push(h(weight < 0 ? "mark.less" : "mark", { style: { "--part": Math.abs(weight) / most } }, word));
    at = Math.max(at, next + word.length);
  }
  pieces.push(found.text.slice(at));
  const strongest = found.words.toSorted((one, other) => Math.abs(other.weight) - Math.abs(one.weight)).slice(0, 3);
  const spelt = strongest.map(({ word, weight }) => `${word} ${weight < 0 ? "−" : "+"}${number(Math.abs(weight), 2)}`).join(", ");
  return part(key, h("p.marked", {}, pieces), h("p.small.muted", {}, t("why.strongest", { words: spelt })));
}

function ways(paths) {
  if (!paths?.length) return null;
  const arrow = () => h("span.muted", { "aria-hidden": "true" }, "→");
  const stop = (step) => (step.kind === "attribute" ? h("span.tag", {}, `${named("column", step.relation)}: ${step.name}`) : h("span", {}, step.name));
  const way = (one) => {
    const steps = one.steps.length === 2 ? [one.steps[0], { kind: "attribute", relation: one.steps[1].relation, name: "" }, one.steps[1]] : one.steps;
    const stops = steps.flatMap((step, at) => [at ? arrow() : null, step.kind === "attribute" && !step.name ? h("span.tag", {}, step.relation) : stop(step)]);
    return h("li.row", {}, stops, one.events > 1 ? h("small.muted", {}, t("why.ways.more", { n: number(one.events - 1) })) : null);
  };
  return part("why.ways", h("ul.stacked", {}, paths.map(way)));
}

function rules(found) {
  if (!found?.length) return null;
  const trait = ({ column, value }) => `${named("column", column)} ${value}`;
  const line = (one) => h("li", {}, t("why.rule", { cause: trait(one.cause), end: trait(one.end), share: percent(one.confidence), base: percent(one.base) }));
  return part("why.rules", h("ul.plain", {}, found.map(line)));
}

function friends(found) {
  return found ? h("p", {}, t("why.friends", { met: number(found.met), of: number(found.of) })) : null;
}

function nearest(found) {
  if (!found?.length) return null;
  return part("why.nearest", h("ol.bars", {}, found.map((one) => bar(one.title, number(one.cosine, 2), one.cosine))));
}

const missing = (words) => (words ? h("p.note", {}, words) : null);
