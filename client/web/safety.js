// A reviewer's view: what users called harmful, the rules in force, the last audit.
import { get, offers, post } from "../static/api.js";
import { byId, empty, fill, h, skeleton } from "../static/dom.js";
import { openItem } from "../static/item.js";
import { complain, notice, trouble } from "../static/notices.js";
import { moment, named, number, onLanguage, t } from "../static/words.js";

let found = null;

export function safetyView() {
  onLanguage(() => found && show());
}

export async function open() {
  if (!found) fill(byId("safety-body"), skeleton(2));
  try {
    const [queue, rules] = await Promise.all([get("queue"), get("rules")]);
    found = { queue: queue.waiting, rules: rules.rules, audit: found?.audit ?? null, audits: await offers("audit") };
  } catch (error) {
    return fill(byId("safety-body"), trouble(error));
  }
  show();
}

function show() {
  fill(byId("safety-body"), queue(), rules(), found.audits ? lastAudit() : null);
}

function queue() {
  const inside = found.queue.length
    ? h("ol.cards", {}, found.queue.map(complaint))
    : empty(t("queue.none"), t("queue.none.advice"));
  return h("section", {}, h("h3.before", { id: "queue-title", tabindex: "-1" }, t("queue")), inside);
}

function complaint(one, at) {
  const button = (what, kind) => h(`button.small${kind}`, { type: "button", "data-focus": `${what}-${at}`, "aria-label": `${t(what)}: ${one.title}`, onclick: () => decide(one, what) }, t(what));
  const times = [one.first, one.last].map(moment);
  return h(
    "li.card.complaint",
    { "data-item": one.item },
    h("h3", {}, h("button.link", { type: "button", "data-focus": `item-${at}`, onclick: () => openItem(null, one.item, null) }, one.title || one.item)),
    h("p.because", {}, t("queue.reports", { n: number(one.reports), people: number(one.people), first: times[0], last: times[1] })),
    one.decided ? h("p.because", {}, t("queue.before", { what: named("decided", one.decided) })) : null,
    one.notes.length ? h("ul.because.plain", {}, one.notes.map((note) => h("li", {}, h("q", {}, note.text)))) : null,
    h("div.actions", {}, button("block", ".primary"), button("keep", "")),
  );
}

async function decide(one, what) {
  try {
    await post(`queue/${encodeURIComponent(one.item)}`, { decision: what });
  } catch (error) {
    return complain(error);
  }
  notice(t(`${what}.done`, { title: one.title }));
  await open();
}

function rules() {
  if (!found.rules.length) return h("section", {}, h("h3.before", {}, t("rules")), empty(t("rules.none"), t("rules.none.advice")));
  const line = (one) => h("tr", {}, h("th", { scope: "row" }, one.rule), h("td", {}, one.least_age === undefined ? t("rules.nobody") : t("rules.age", { age: number(one.least_age) })), h("td.end", {}, number(one.items)));
  const head = h("tr", {}, h("th", { scope: "col" }, t("rules.rule")), h("th", { scope: "col" }, t("rules.who")), h("th.end", { scope: "col" }, t("rules.items")));
  return h("section.panel", {}, h("h3", {}, t("rules")), h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("rules") }, h("table", {}, h("thead", {}, head), h("tbody", {}, found.rules.map(line)))));
}

/** Asked for by hand: where none was made yet, that is an error to the process. */
function lastAudit() {
  if (found.audit) return audit(found.audit);
  const read = async () => {
    try {
      found.audit = await get("audit");
    } catch (error) {
      return complain(error);
    }
    show();
  };
  return h("p", {}, h("button", { type: "button", "data-focus": "audit", onclick: read }, t("audit.open")));
}

function audit(one) {
  const shown = one.exposure.sample;
  const figures = [
    [t("audit.coverage"), figure(shown.coverage)],
    [t("audit.gini"), figure(shown.gini)],
    [t("audit.complaints"), number(one.complaints.harmful)],
    [t("audit.hidden"), number(one.complaints.hide)],
  ];
  return h(
    "section.panel",
    {},
    h("h3", {}, t("audit")),
    h("p.hint", {}, t("audit.made", { when: moment(Date.parse(one.made) / 1000), model: one.model, users: number(one.sample.users) })),
    h("dl.figures", {}, figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
}

const figure = (value) => number(value, 3);
