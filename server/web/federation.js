// The federation at a glance: its state, its domains, its rounds.
import { get } from "../static/api.js";
import { byId, empty, fill, h, skeleton } from "../static/dom.js";
import { trouble } from "../static/notices.js";
import { bytes, figure, number, onLanguage, t } from "../static/words.js";
import { affinity, charts, table } from "./rounds.js";

const BAD = ["failed", "stopped"];
let found = null;

export function view() {
  onLanguage(() => found && show());
}

export async function open() {
  if (!found) fill(byId("federation-body"), skeleton(3));
  try {
    found = await get("federation");
  } catch (error) {
    return fill(byId("federation-body"), trouble(error));
  }
  show();
}

function show() {
  const domains = found.domains.length
    ? h("div.grid", {}, found.domains.map(domain))
    : empty(t("domains.none"), t("domains.none.advice"));
  const rounds = found.rounds.length ? [charts(found), affinity(found.affinity), table(found)] : [];
  fill(byId("federation-body"), state(), h("h2", {}, t("domains")), domains, ...rounds);
}

function state() {
  const { plan } = found;
  const figures = [
    [t("plan.family"), t(`family.${plan.family}`), t(`family.${plan.family}.hint`)],
    [t("plan.privacy"), plan.epsilon === null ? t("plan.private.no") : `ε ${figure(plan.epsilon)}`, plan.epsilon === null ? t("plan.private.no.hint") : t("plan.private.hint", { delta: figure(plan.delta) })],
    [t("plan.secure"), t(plan.secure ? "yes" : "no"), t(plan.secure ? "plan.secure.hint" : "plan.insecure.hint")],
    [t("plan.model"), plan.base, t("plan.model.hint", { rank: number(plan.rank), layers: number(plan.top_layers) })],
  ];
  const part = found.rounds_done / plan.rounds;
  const kind = BAD.includes(found.state) ? ".bad" : ".good";
  const here = found.wanted === null || found.wanted === undefined ? null : t("connected.of", { n: number(found.connected), of: number(found.wanted) });
  return h(
    "section.panel.stack",
    {},
    h("div.state", {}, h("strong", {}, t("rounds.of", { n: number(found.rounds_done), of: number(plan.rounds) })), h(`span.tag${kind}`, {}, t(`state.${found.state}`)), here ? h("span.muted", {}, here) : null),
    h("div.progress", { "aria-hidden": "true" }, h("i", { style: { "--part": part } })),
    found.reason ? h("p.note", {}, found.state === "stopped" ? t("state.stopped.advice") : found.reason) : null,
    found.answered.length ? h("p.small.muted", {}, t("answered", { round: number(found.round), domains: found.answered.join(", ") })) : null,
    h("dl.figures", {}, figures.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, more))))),
  );
}

function domain(one) {
  const last = one.bytes.at(-1);
  const quality = one.quality.at(-1);
  const facts = [
    [t("domain.round"), one.last_round === null ? "–" : number(one.last_round)],
    [t("domain.weight"), one.weight_class === null ? "–" : number(one.weight_class)],
    [t("domain.traffic"), last ? t("domain.bytes", { down: bytes(last.down), up: bytes(last.up) }) : "–"],
    [t("domain.quality"), quality ? number(quality["ndcg@10"], 3) : t("domain.quality.none")],
    [t("domain.privacy"), spent(one.privacy)],
  ];
  return h(
    "section.panel.domain",
    {},
    h("h3", {}, one.name, one.connected ? h("span.tag.good", {}, t("domain.here")) : null),
    h("dl.facts", {}, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    refusals(one.refused),
  );
}

function spent(privacy) {
  if (!privacy) return t("plan.private.no");
  if (privacy.so_far === null) return t("domain.privacy.planned", { whole: number(privacy.whole_run, 2) });
  return t("domain.privacy.of", { spent: number(privacy.so_far, 2), whole: number(privacy.whole_run, 2) });
}

function refusals(refused) {
  if (!refused.length) return null;
  const line = (one) => h("li", {}, h("b", {}, t("refused.in", { round: number(one.round) })), " ", one.reason);
  return h("ul.refusals", {}, refused.map(line));
}
