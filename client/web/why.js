// Why an item is recommended, as far as the process can say: events, words, paths of attributes, rules.
import { post } from "../static/api.js";
import { dialog } from "../static/dialog.js";
import { fill, h, skeleton } from "../static/dom.js";
import { trouble } from "../static/notices.js";
import { number, t } from "../static/words.js";

const MOST = 8;

export async function openWhy(item, asker) {
  const { body } = dialog(t("why.title", { title: item.title }));
  fill(body, skeleton(3));
  try {
    const found = await post("explain", { ...asker, item: item.item_id, most: MOST });
    fill(body, events(found.because));
  } catch (error) {
    fill(body, trouble(error));
  }
}

function events(because) {
  if (!because.length) return h("p", {}, t("because.most"));
  const most = Math.max(...because.map((one) => one.drop));
  const bar = (one) =>
    h(
      "li",
      {},
      h("span", {}, one.title),
      h("span.number.muted", {}, `−${number(one.drop, 2)}`),
      h("span.bar", { "aria-hidden": "true" }, h("i", { style: { "--part": one.drop / most } })),
    );
  return h("section", {}, h("h3", {}, t("why.events")), h("p.hint", {}, t("why.events.hint")), h("ol.bars", {}, because.map(bar)));
}
