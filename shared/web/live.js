// What happens in the process, as it happens (server-sent events). The browser reconnects by itself.
import { onLanguage, t } from "./words.js";
import { byId } from "./dom.js";

/** Calls handlers[kind](data) for each event; the header says whether the line is up. */
export function listen(handlers) {
  const source = new EventSource(new URL("../api/live", import.meta.url));
  let up = false;
  const show = () => {
    byId("live").dataset.up = up;
    byId("live-text").textContent = t(up ? "live.up" : "live.down");
  };
  source.onopen = () => {
    up = true;
    show();
    handlers.open?.();
  };
  source.onerror = () => {
    up = false;
    show();
  };
  for (const [kind, handle] of Object.entries(handlers)) {
    if (kind !== "open") source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  }
  addEventListener("pagehide", () => source.close());
  onLanguage(show);
  show();
}
