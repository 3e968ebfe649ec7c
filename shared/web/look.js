// Light or dark: as the system has it, or as the reader chose.
import { remember, remembered } from "./memory.js";

export const LOOKS = ["system", "light", "dark"];
const listeners = new Set();
const system = matchMedia("(prefers-color-scheme: dark)");

export const look = () => remembered("look", LOOKS) ?? "system";

export function wear(chosen) {
  remember("look", chosen);
  if (chosen === "system") delete document.documentElement.dataset.look;
  else document.documentElement.dataset.look = chosen;
  tell();
}

/** Calls back whenever the colours change: a drawing on a canvas does not change with them. */
export const onLook = (listener) => listeners.add(listener);

/** A colour of page.css as it is now: "rgb(...)". */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function tell() {
  for (const listener of listeners) listener();
}

system.addEventListener("change", tell);
