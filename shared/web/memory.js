// What a browser keeps of a reader: the language and the look, nothing else.
const PREFIX = "isthmus.";

/** What was remembered, where it is one of those allowed; null otherwise. */
export function remembered(name, allowed) {
  try {
    const value = localStorage.getItem(PREFIX + name);
    return allowed.includes(value) ? value : null;
  } catch {
    return null; // a browser may forbid it: then each visit starts afresh
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // as above
  }
}
