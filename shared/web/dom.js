// Elements without a framework. Text only ever becomes a text node, so nothing that a catalogue holds can become markup.

/** An element: h("button.primary", {type: "button", onclick: go}, "Open"). Properties that are null are left out. */
export function h(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name in element && !name.includes("-") && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Puts children in place of what an element holds. Whoever had the focus there keeps it, by its data-focus. */
export function fill(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (key === undefined) return;
  const again = element.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  const instead = again ?? element.closest("section")?.querySelector("[tabindex='-1']");
  instead?.focus({ preventScroll: again !== null });
}

/** Calls at most once for a burst of calls, when it is over. */
export function settled(call, afterMs = 250) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), afterMs);
  };
}

/** What stands where something is still on its way. */
export function skeleton(rows = 4) {
  return Array.from({ length: rows }, () => h("div.skeleton", { "aria-hidden": "true" }));
}

/** What stands where there is nothing: a line, and what to do. */
export function empty(title, advice) {
  return h("div.empty", {}, h("p.empty-title", {}, title), advice ? h("p", {}, advice) : null);
}
