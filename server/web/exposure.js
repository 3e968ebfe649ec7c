// How evenly the catalogues are shown: counts of items since the process started, nothing of who asked.
import { get } from "../static/api.js";
import { lines } from "../static/chart.js";
import { byId, empty, fill, h, settled, skeleton } from "../static/dom.js";
import { trouble } from "../static/notices.js";
import { number, onLanguage, percent, t } from "../static/words.js";

const GROUPS = [["head", "coral"], ["known", "gold"], ["tail", "sea"]];
const MOST_POINTS = 500;
let found = null;
const past = []; // what this page has seen: [{answers, coverage: {domain: part}}]

export function view() {
  onLanguage(() => found && show());
}

export async function open() {
  if (!found) fill(byId("exposure-body"), skeleton(2));
  try {
    found = await get("exposure");
  } catch (error) {
    return fill(byId("exposure-body"), trouble(error));
  }
  if (found.answers !== past.at(-1)?.answers) {
    past.push({ answers: found.answers, coverage: Object.fromEntries(found.domains.map((one) => [one.domain, one.coverage])) });
    if (past.length > MOST_POINTS) past.shift();
  }
  show();
}

/** More was shown: look, but not at each answer of a busy minute. */
export const counted = settled(open, 500);

function show() {
  const body = byId("exposure-body");
  if (!found.answers) return fill(body, empty(t("exposure.none"), t("exposure.none.advice")));
  const series = found.domains.map(({ domain }, place) => ({ name: domain, place, values: past.map((one) => one.coverage[domain] ?? null) }));
  const chart = lines({ title: t("exposure.chart"), axis: t("exposure.answers"), places: past.map((one) => one.answers), series, spell: (value) => percent(value, 1), from: 0 });
  fill(body, h("p.muted", {}, t("exposure.count", { n: number(found.answers) })), h("div.grid", {}, found.domains.map(domain)), past.length > 1 ? chart : null);
}

function domain(one) {
  const figures = [
    [t("coverage"), percent(one.coverage, 1), t("coverage.hint", { items: number(one.items) })],
    [t("gini"), number(one.gini, 2), t("gini.hint")],
    [t("top"), percent(one.top_share, 1), t("top.hint")],
  ];
  return h(
    "section.panel",
    {},
    h("h3", {}, one.domain),
    h("dl.figures.close", {}, figures.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, more))))),
    one.groups && one.shown ? groups(one.groups) : null,
  );
}

function groups(parts) {
  const bar = GROUPS.map(([name, hue]) => h("i", { style: { "--part": parts[name], "--hue": `var(--${hue})` } }));
  const named = GROUPS.map(([name, hue]) => h("li", {}, h("i.swatch", { "aria-hidden": "true", style: { "--hue": `var(--${hue})` } }), `${t(`group.${name}`)} ${percent(parts[name])}`));
  return h("div.groups", {}, h("div.parts", { "aria-hidden": "true" }, bar), h("ul.row.small.key", {}, named));
}
