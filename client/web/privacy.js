// What this domain's releases have cost its users, from its ledger.
import { get } from "../static/api.js";
import { byId, empty, fill, h, skeleton } from "../static/dom.js";
import { trouble } from "../static/notices.js";
import { figure, number, onLanguage, t } from "../static/words.js";

let found = null;

export function privacyView() {
  onLanguage(() => found && show());
}

export async function open() {
  if (!found) fill(byId("privacy-body"), skeleton(2));
  try {
    found = await get("budget");
  } catch (error) {
    return fill(byId("privacy-body"), trouble(error));
  }
  show();
}

function show() {
  fill(byId("privacy-body"), found.releases ? spent() : unspent(), kept());
}

function unspent() {
  return empty(t("budget.none"), t(found.promised ? "budget.none.promised" : "budget.none.advice"));
}

function spent() {
  const unbound = found.epsilon === null;
  const figures = [
    [t("budget.epsilon"), unbound ? "∞" : number(found.epsilon, 2), t("budget.delta", { delta: figure(found.delta) })],
    [t("budget.trainings"), number(found.trainings), t("budget.steps", { n: number(found.steps) })],
    [t("budget.passports"), number(found.passports), t("budget.passports.hint")],
    ...(found.unpromised ? [[t("budget.unpromised"), number(found.unpromised), t("budget.unpromised.hint")]] : []),
  ];
  const odds = Math.exp(found.epsilon);
  return h(
    "section.panel.stack",
    {},
    h("h3", {}, t("budget")),
    h("dl.figures", {}, figures.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, more))))),
    unbound ? null : found.limit === null ? h("p.hint", {}, t("budget.unlimited")) : limit(),
    h("p.note", {}, unbound ? t("budget.unbounded") : t("budget.meaning", { odds: odds > 1e6 ? t("budget.million") : figure(odds), delta: figure(found.delta) })),
  );
}

function limit() {
  const words = t("budget.limit", { spent: number(found.epsilon, 2), limit: number(found.limit, 2) });
  const meter = h("meter", { id: "budget-meter", min: "0", max: String(found.limit), high: String(0.85 * found.limit), value: String(Math.min(found.epsilon, found.limit)) });
  return h("div.field", {}, h("label", { for: "budget-meter" }, words), meter);
}

function kept() {
  const leaves = ["leaves.1", "leaves.2", ...(found.shares_items ? ["leaves.items"] : [])];
  const stays = ["stays.1", "stays.2", "stays.3", "stays.4"];
  const lines = (keys) => h("ul.plain", {}, keys.map((key) => h("li", {}, t(`privacy.${key}`))));
  const part = (name, keys) => h("section.panel", {}, h("h3", {}, t(`privacy.${name}`)), lines(keys));
  return h("div.grid", {}, part("leaves", leaves), part("stays", stays));
}
