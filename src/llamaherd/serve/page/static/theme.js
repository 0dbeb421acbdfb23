// Before the first paint, so that no light page flashes up in the dark. A script of its own, since the page allows none inline.
const kept = localStorage.getItem("llamaherd.theme");
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
