// One item in a window: what is known of it, and what is like it.
import { get } from "../static/api.js";
import { dialog } from "../static/dialog.js";
import { fill, h, skeleton } from "../static/dom.js";
import { trouble } from "../static/notices.js";
import { named, t } from "../static/words.js";

/** ``only(column, value)`` filters the list by one of its attributes. */
export async function openItem(id, only) {
  const { element, heading, body } = dialog(t("item"));
  await show(id, only, { element, heading, body });
}

async function show(id, only, { element, heading, body }) {
  fill(body, skeleton(3));
  try {
    const item = await get(`items/${encodeURIComponent(id)}`);
    heading.textContent = item.title;
    const go = (one) => show(one.item_id, only, { element, heading, body });
    const filter = (one) => {
      element.close();
      only(one.column, one.value);
    };
    fill(
      body,
      item.text && item.text !== item.title ? h("section", {}, h("h3", {}, t("item.text")), h("p", {}, item.text)) : null,
      item.attributes.length
        ? h("section", {}, h("h3", {}, t("item.attributes")), h("p.row", {}, item.attributes.map((one) => attribute(one, filter))))
        : null,
      h("section", {}, h("h3", {}, t("item.alike")), h("ul.events", {}, item.alike.map((one) => h("li", {}, h("button.link", { type: "button", onclick: () => go(one) }, one.title))))),
      h("p.small.muted", {}, t("item.id", { id: item.item_id })),
    );
    heading.closest("dialog").scrollTop = 0;
  } catch (error) {
    fill(body, trouble(error));
  }
}

function attribute(one, filter) {
  const words = `${named("column", one.column)}: ${one.value}`;
  return h("button.tag", { type: "button", "aria-label": t("item.only", { words }), onclick: () => filter(one) }, words);
}
