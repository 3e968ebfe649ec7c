// Why an item is recommended, as far as the process can say.
import { post } from "./api.js";
import { dialog } from "./dialog.js";
import { fill, h, skeleton } from "./dom.js";
import { trouble } from "./notices.js";
import { number, t } from "./words.js";

const MOST = 8;

/** ``ask``: the item, and for whom, as the process takes it. */
export async function openWhy(title, ask) {
  const { body } = dialog(t("why.title", { title }));
  fill(body, skeleton(3));
  try {
    const found = await post("explain", { ...ask, most: MOST });
    fill(body, events(found.because));
  } catch (error) {
    fill(body, trouble(error));
  }
}

function events(because) {
  if (!because.length) return h("p", {}, t("because.most"));
  const most = Math.max(...because.map((one) => one.drop));
  const lines = because.map((one) => bar(one.title, `−${number(one.drop, 2)}`, one.drop / most));
  return h("section", {}, h("h3", {}, t("why.events")), h("p.hint", {}, t("why.events.hint")), h("ol.bars", {}, lines));
}

/** A line with a figure, and a bar that shows it as a part of the greatest. */
export function bar(words, figure, part) {
  return h(
    "li",
    {},
    h("span", {}, words),
    h("span.number.muted", {}, figure),
    h("span.bar", { "aria-hidden": "true" }, h("i", { style: { "--part": part } })),
  );
}
