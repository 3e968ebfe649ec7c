// The items as the model sees them, on a plane; the person who is open stands among them.
import { get, post } from "../static/api.js";
import { byId, fill, h, skeleton } from "../static/dom.js";
import { openItem } from "../static/item.js";
import { colour, onLook } from "../static/look.js";
import { trouble } from "../static/notices.js";
import { named, number, onLanguage, percent, t } from "../static/words.js";
import { who } from "./person.js";

const HUES = ["sea", "coral", "violet", "sky", "gold", "leaf", "rose", "edge"];
const NEAR = 10; // pixels
const EDGE = 16;
let map = null;
let place = null; // of whoever is open
let lit = null; // the one group that stands out
let canvas = null;

export function mapView() {
  onLanguage(() => map && show());
  onLook(draw);
  new ResizeObserver(draw).observe(byId("map-body"));
}

export async function open() {
  if (!map) fill(byId("map-body"), skeleton(3));
  try {
    map = await get("map");
    const asker = who();
    place = asker ? await post("map", asker) : null;
  } catch (error) {
    return fill(byId("map-body"), trouble(error));
  }
  show();
}

function show() {
  const label = t("map.label", { shown: number(map.points.length), items: number(map.items) });
  canvas = h("canvas", { role: "img", "aria-label": label, onmousemove: point, onmouseleave: () => say(null), onclick: choose });
  const [first, second] = map.explained;
  fill(
    byId("map-body"),
    h("div.panel", {}, h("div.row.groups", {}, map.groups.map(group)), canvas, h("p.small.muted.under", { id: "map-said", "aria-hidden": "true" }, t("map.hover"))),
    h("p.note", {}, t("map.explained", { first: percent(first, 1), second: percent(second, 1) })),
  );
  draw();
}

/** A button that makes one group stand out; colours alone would not tell them apart for everybody. */
function group(name, at) {
  const press = () => {
    lit = lit === at ? null : at;
    show();
  };
  const words = name === "other" ? t("map.other") : name;
  const swatch = h("i.dot", { "aria-hidden": "true", style: { "--hue": `var(--${HUES[at % HUES.length]})` } });
  return h("button.tag", { type: "button", "aria-pressed": String(lit === at), "data-focus": `group-${at}`, onclick: press }, swatch, map.column && name !== "other" ? `${named("column", map.column)}: ${words}` : words);
}

/** From the map's coordinates to the canvas's; both directions keep their proportion. */
function scale() {
  const span = (key) => [Math.min(...map.points.map((one) => one[key])), Math.max(...map.points.map((one) => one[key]))];
  const [[left, right], [low, high]] = [span("x"), span("y")];
  const { clientWidth: width, clientHeight: height } = canvas;
  const unit = Math.min((width - 2 * EDGE) / (right - left || 1), (height - 2 * EDGE) / (high - low || 1));
  return ({ x, y }) => [width / 2 + (x - (left + right) / 2) * unit, height / 2 - (y - (low + high) / 2) * unit];
}

function draw() {
  if (!map || !canvas?.clientWidth) return;
  const dense = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * dense;
  canvas.height = canvas.clientHeight * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const at = scale();
  const hues = HUES.map(colour);
  for (const one of map.points) {
    pen.globalAlpha = lit === null ? 0.75 : one.group === lit ? 1 : 0.12;
    dot(pen, at(one), hues[one.group % hues.length], 3);
  }
  pen.globalAlpha = 1;
  if (place) person(pen, at(place));
}

function dot(pen, [x, y], hue, size) {
  pen.fillStyle = hue;
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.fill();
}

/** Who stands farther out than all items stands at the edge. */
function person(pen, [right, down]) {
  const inside = (value, most) => Math.min(Math.max(value, EDGE), most - EDGE);
  const [x, y] = [inside(right, canvas.clientWidth), inside(down, canvas.clientHeight)];
  dot(pen, [x, y], colour("surface"), 10);
  dot(pen, [x, y], colour("ink"), 8);
  dot(pen, [x, y], colour("surface"), 3);
}

function nearest(event) {
  const at = scale();
  const far = (one) => Math.hypot(at(one)[0] - event.offsetX, at(one)[1] - event.offsetY);
  const best = map.points.reduce((one, other) => (far(other) < far(one) ? other : one), map.points[0]);
  return best && far(best) <= NEAR ? best : null;
}

const say = (item) => (byId("map-said").textContent = item ? item.title : t("map.hover"));

function point(event) {
  const item = nearest(event);
  canvas.style.cursor = item ? "pointer" : "default";
  say(item);
}

function choose(event) {
  const item = nearest(event);
  if (item) openItem(null, item.item_id, null);
}
