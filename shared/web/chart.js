// Lines over rounds or answers, drawn by uPlot; the same as a table for those who do not see them.
import { h } from "./dom.js";
import { colour, onLook } from "./look.js";
import { number, t } from "./words.js";

const HUES = ["sea", "coral", "violet", "sky"];
const DASHES = [[], [6, 4], [2, 3]];
const HEIGHT = 220;
const WHOLE = [1, 2, 5].flatMap((one) => Array.from({ length: 7 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b);
const charts = new Set();

/**
 * A figure: ``series`` are [{name, values, place}] over ``places`` (whole numbers); a value may be null, ``place``
 * gives the colour. ``spell`` says a value; the axis starts ``from`` there, where given.
 */
export function lines({ title, axis, places, series, spell, from }) {
  const place = h("div.chart", { role: "img", "aria-label": `${title}: ${series.map((one) => one.name).join(", ")}` });
  const one = { place, title, axis, places, series, spell, from, plot: null };
  charts.add(one);
  new ResizeObserver(() => draw(one)).observe(place);
  return h("figure.panel", {}, h("h3", {}, title), place, key(series), table(one));
}

function draw(one) {
  if (!one.place.isConnected) {
    charts.delete(one);
    one.plot?.destroy();
    return;
  }
  const width = Math.floor(one.place.clientWidth);
  if (!width) return;
  if (one.plot) return one.plot.setSize({ width, height: HEIGHT });
  one.plot = new uPlot(options(one, width), [one.places, ...one.series.map((line) => line.values)], one.place);
}

function options({ series, spell, axis, places, from }, width) {
  const ink = colour("muted");
  const grid = { stroke: colour("line"), width: 1 };
  const side = { stroke: ink, grid, ticks: { ...grid, size: 4 }, font: "12px system-ui" };
  const few = places.length < 40;
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, range: [places[0] - (places.length === 1), places.at(-1) + (places.length === 1)] }, y: { range: (_, low, high) => limits(low, high, from) } },
    axes: [
      { ...side, incrs: WHOLE, label: axis, labelFont: "12px system-ui", labelSize: 18, values: (_, splits) => splits.map((value) => number(value)), size: 30 },
      { ...side, values: (_, splits) => splits.map(spell), size: 64 },
    ],
    series: [{}, ...series.map((line) => ({ stroke: colour(hue(line.place)), dash: dash(line.place), width: 2, points: { show: few, size: 6, fill: colour(hue(line.place)) } }))],
  };
}

/** Room above and below; from 0 where that is what a figure is measured from. */
function limits(low, high, from) {
  const room = (high - low || Math.abs(high) || 1) * 0.12;
  return [from ?? low - room, high + room];
}

const hue = (at) => HUES[at % HUES.length];
const dash = (at) => DASHES[at % DASHES.length];

function key(series) {
  const mark = (at) => h("i.swatch", { "aria-hidden": "true", style: { "--hue": `var(--${hue(at)})`, "--stroke": ["solid", "dashed", "dotted"][at % 3] } });
  return h("ul.row.small.key", {}, series.map((one) => h("li", {}, mark(one.place), one.name)));
}

function table({ title, axis, places, series, spell }) {
  const head = h("tr", {}, h("th", { scope: "col" }, axis), series.map((one) => h("th.end", { scope: "col" }, one.name)));
  const value = (one) => h("td.end", {}, one === null || one === undefined ? "–" : spell(one));
  const rows = places.map((at, row) => h("tr", {}, h("th", { scope: "row" }, number(at)), series.map((one) => value(one.values[row]))));
  const inside = h("table", {}, h("caption", {}, title), h("thead", {}, head), h("tbody", {}, rows));
  return h("details.small", {}, h("summary", {}, t("chart.table")), h("div.scroll", { tabindex: "0", role: "region", "aria-label": title }, inside));
}

function again() {
  for (const one of charts) {
    one.plot?.destroy();
    one.plot = null;
    draw(one);
  }
}

onLook(again);
