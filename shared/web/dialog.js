// A window over the page: the browser keeps the focus inside, Escape closes it, the focus goes back where it was.
import { h } from "./dom.js";
import { onLanguage, t } from "./words.js";

/** Opens an empty one under a heading; returns its body and a way to close it. */
export function dialog(title) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const body = h("div.dialog-body");
  const close = h("button.quiet", { type: "button", onclick: () => element.close() }, t("close"));
  const element = h("dialog", { "aria-labelledby": "dialog-title" }, h("header", {}, heading, close), body);
  element.addEventListener("click", (event) => event.target === element && element.close());
  const opener = document.activeElement;
  element.addEventListener("close", () => {
    element.remove();
    // What lies beneath may have been drawn anew: the button that opened this is another one then.
    if (!opener.isConnected) document.querySelector(`[data-focus="${CSS.escape(opener.dataset.focus ?? "")}"]`)?.focus();
  });
  document.body.append(element);
  element.showModal();
  return { element, heading, body };
}

// What stands in it was written in the language before: closed, it can be opened again in the new one.
onLanguage(() => document.querySelector("dialog[open]")?.close());
