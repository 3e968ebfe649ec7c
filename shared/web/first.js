// Before the page is drawn: the look that the reader chose, so that nothing flashes.
(() => {
  try {
    const look = localStorage.getItem("isthmus.look");
    if (look === "light" || look === "dark") document.documentElement.dataset.look = look;
  } catch {
    // no storage: the system's look
  }
})();
