// What the rounds of a federation tell: charts, who is like whom, a table.
import { lines } from "../static/chart.js";
import { h } from "../static/dom.js";
import { bytes, figure, number, percent, t } from "../static/words.js";

/** Quality and bytes where they are known, and the norms of the updates. */
export function charts({ rounds, domains }) {
  const places = rounds.map((one) => one.round);
  const names = domains.map((one) => one.name);
  const over = (read) => names.map((name, place) => ({ name, place, values: rounds.map((one) => read(one, name) ?? null) })).filter((one) => one.values.some((value) => value !== null));
  const chart = (title, series, spell, from) => (series.length ? lines({ title, axis: t("round"), places, series, spell, from }) : null);
  const quality = over((one, name) => one.quality?.[name]);
  const moved = over((one, name) => one.update_norms?.[name]);
  const sent = over((one, name) => (one.bytes?.[name] ? one.bytes[name].down + one.bytes[name].up : null));
  return h(
    "div.grid.charts",
    {},
    chart(t("chart.quality"), quality, (value) => number(value, 2)),
    chart(t("chart.norms"), moved, figure, 0),
    chart(t("chart.bytes"), sent, bytes, 0),
  );
}

/** Whose towers each domain works with, as parts of a whole. */
export function affinity(found) {
  if (!found?.shares) return null;
  const names = Object.keys(found.shares);
  const cell = (row, column) => {
    const part = found.shares[row][column] ?? 0;
    return h("td", { style: { "--part": part } }, percent(part));
  };
  const head = h("tr", {}, h("td"), names.map((one) => h("th", { scope: "col" }, one)));
  const rows = names.map((row) => h("tr", {}, h("th", { scope: "row" }, row), names.map((column) => cell(row, column))));
  const inside = h("table.heat", {}, h("caption", {}, t("affinity.hint")), h("thead", {}, head), h("tbody", {}, rows));
  return h("section.panel", {}, h("h3", {}, t("affinity")), h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("affinity") }, inside));
}

/** The newest first. */
export function table({ rounds }) {
  const line = (one) => {
    const missed = Object.keys({ ...one.refused, ...one.failed });
    const sum = Object.values(one.bytes ?? {}).reduce((total, part) => total + part.down + part.up, 0);
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, number(one.round)),
      h("td", {}, one.domains.join(", ")),
      h("td", {}, missed.length ? h("span.tag.bad", {}, missed.join(", ")) : "–"),
      h("td.end", {}, sum ? bytes(sum) : "–"),
      h("td.end", {}, one.seconds === undefined ? "–" : t("seconds", { n: number(one.seconds, 1) })),
    );
  };
  const head = [["round", ""], ["table.domains", ""], ["table.refused", ""], ["table.bytes", ".end"], ["table.time", ".end"]];
  const inside = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, head.map(([key, kind]) => h(`th${kind}`, { scope: "col" }, t(key))))),
    h("tbody", {}, rounds.toReversed().map(line)),
  );
  return h("section.panel", {}, h("h3", {}, t("rounds")), h("div.scroll", { tabindex: "0", role: "region", "aria-label": t("rounds") }, inside));
}
