// A part of the page that is drawn anew keeps the keyboard where it was. htmx itself does so for elements with an id.

const body = document.body;
const REACHED = "a[href], button, summary, input, select, textarea";
let held = null;

// What a person takes for the same thing: its kind, where it leads and what it says.
function sameness(element) {
  const leads = element.getAttribute("href") ?? element.form?.getAttribute("action") ?? "";
  return [element.tagName, element.name ?? "", leads, element.textContent.trim()].join("\n");
}

body.addEventListener("htmx:beforeSwap", (event) => {
  const focused = document.activeElement;
  held = focused !== body && !focused.id && event.detail.target.contains(focused) ? sameness(focused) : null;
});

body.addEventListener("htmx:afterSwap", () => {
  if (held === null || document.activeElement !== body) return;
  [...document.querySelectorAll(REACHED)].find((element) => sameness(element) === held)?.focus({ preventScroll: true });
  held = null;
});
