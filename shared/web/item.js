// One item in a window: what is known of it, and what is like it.
import { get } from "./api.js";
import { dialog } from "./dialog.js";
import { fill, h, skeleton } from "./dom.js";
import { trouble } from "./notices.js";
import { named, t } from "./words.js";

/**
 * ``domain`` is null on a page that knows one alone. ``only(column, value)`` filters the list by an attribute; null
 * where there is no such filter.
 */
export async function openItem(domain, id, only) {
  await show(domain, id, only, dialog(t("item")));
}

async function show(domain, id, only, { element, heading, body }) {
  fill(body, skeleton(3));
  const place = [domain, id].filter((one) => one !== null).map(encodeURIComponent).join("/");
  try {
    const item = await get(`items/${place}`);
    heading.textContent = item.title;
    const go = (one) => show(domain, one.item_id, only, { element, heading, body });
    const filter = (one) => {
      element.close();
      only(one.column, one.value);
    };
    const part = (name, ...inside) => h("section", {}, h("h3", {}, t(name)), ...inside);
    const alike = item.alike.map((one) => h("li", {}, h("button.link", { type: "button", onclick: () => go(one) }, one.title)));
    fill(
      body,
      item.text && item.text !== item.title ? part("item.text", h("p", {}, item.text)) : null,
      item.attributes.length ? part("item.attributes", h("p.row", {}, item.attributes.map((one) => attribute(one, only && filter)))) : null,
      part("item.alike", h("ul.events", {}, alike)),
      h("p.small.muted", {}, t("item.id", { id: item.item_id })),
    );
    element.scrollTop = 0;
  } catch (error) {
    fill(body, trouble(error));
  }
}

function attribute(one, filter) {
  const words = `${named("column", one.column)}: ${one.value}`;
  if (!filter) return h("span.tag", {}, words);
  return h("button.tag", { type: "button", "aria-label": t("item.only", { words }), onclick: () => filter(one) }, words);
}
