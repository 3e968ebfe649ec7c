// What the page says of what just happened: seen in a corner, read out by a screen reader, gone after a while.
import { byId, h } from "./dom.js";
import { inWords } from "./api.js";

const SHOWN_MS = 6000;

export function notice(text, kind = "done") {
  const one = h(`p.notice.${kind}`, {}, text);
  byId("notices").append(one);
  setTimeout(() => one.remove(), SHOWN_MS);
}

export function complain(error) {
  const { title, detail } = inWords(error);
  notice(detail ? `${title} ${detail}` : title, "wrong");
}

/** An error where the answer would have stood. */
export function trouble(error) {
  const { title, detail } = inWords(error);
  return h("div.trouble", { role: "alert" }, h("p.empty-title", {}, title), detail ? h("p", {}, detail) : null);
}
