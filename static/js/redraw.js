// Parts of a page that fetch and replace themselves: nothing that a person does there is lost, and
// no news either.

const body = document.body;
const REACHED = "a[href], button, summary, input, select, textarea";
let held = null;
let pressed = null;
let isMissed = false;

// --- news --------------------------------------------------------------------------------------
// htmx drops what an element hears while its own replacement is on its way, and that may show an
// older state.
const announced = new Map();
const begun = new WeakMap();
let serial = 0;

export function announce(name, detail = {}) {
  announced.set(name, { at: ++serial, detail });
  body.dispatchEvent(new CustomEvent(name, { detail }));
}

body.addEventListener("htmx:beforeSend", (event) => begun.set(event.detail.xhr, serial));
body.addEventListener("htmx:afterSettle", (event) => {
  const { xhr, requestConfig } = event.detail;
  const since = begun.get(xhr);
  begun.delete(xhr);
  if (since === undefined || requestConfig.elt.isConnected) return;
  for (const [name, { at, detail }] of announced) {
    if (at > since) body.dispatchEvent(new CustomEvent(name, { detail }));
  }
});

// --- what was done here ------------------------------------------------------------------------
// The socket brings news of it as of anything else: one change, one fetch. Only where nothing
// comes, because the socket or the broker is away, the answer's own word counts.
const NEWS_WITHIN_MS = 1500;
let before = 0;

body.addEventListener("htmx:beforeSend", ({ detail }) => {
  if (detail.requestConfig.verb !== "get") before = serial;
});
body.addEventListener("acted", ({ detail }) => {
  const since = before;
  setTimeout(() => {
    for (const name of detail.news) {
      if ((announced.get(name)?.at ?? 0) <= since) announce(name);
    }
  }, NEWS_WITHIN_MS);
});

// --- pointer -----------------------------------------------------------------------------------
// A button replaced between press and release is not clicked: the part is fetched again afterwards.
document.addEventListener(
  "pointerdown",
  (event) => {
    pressed = event.button === 0 ? event.target : null;
  },
  true,
);
for (const type of ["pointerup", "pointercancel"]) {
  document.addEventListener(
    type,
    () =>
      setTimeout(() => {
        pressed = null;
        if (isMissed) announce("resync");
        isMissed = false;
      }, 0),
    true,
  );
}

body.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (pressed && requestConfig.elt === target && target.contains(pressed)) {
    isMissed = true;
    event.detail.shouldSwap = false;
  }
});

// --- what is as it was -------------------------------------------------------------------------
// A part that looks again and again (data-if-changed) is drawn when it has changed: what somebody
// is selecting in it, to copy a command, stays selected.
const TOKENS = /name="csrfmiddlewaretoken" value="[^"]*/g;
const drawn = new WeakMap();

body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { target, requestConfig, serverResponse } = detail;
  if (!detail.shouldSwap || !target.matches("[data-if-changed]")) return;
  const text = serverResponse.replaceAll(TOKENS, "");
  if (requestConfig.verb === "get" && drawn.get(target) === text) detail.shouldSwap = false;
  else drawn.set(target, text);
});

// --- keyboard ----------------------------------------------------------------------------------
// What a person takes for the same thing: its kind, where it leads and what it says. htmx itself
// keeps the focus of elements with an id.
function sameness(element) {
  const leads = element.getAttribute("href") ?? element.form?.getAttribute("action") ?? "";
  return [element.tagName, element.name ?? "", leads, element.textContent.trim()].join("\n");
}

body.addEventListener("htmx:beforeSwap", (event) => {
  const focused = document.activeElement;
  held =
    focused !== body && !focused.id && event.detail.target.contains(focused)
      ? sameness(focused)
      : null;
});

body.addEventListener("htmx:afterSwap", () => {
  if (held === null || document.activeElement !== body) return;
  [...document.querySelectorAll(REACHED)]
    .find((element) => sameness(element) === held)
    ?.focus({ preventScroll: true });
  held = null;
});

// --- what was unfolded -------------------------------------------------------------------------
// A part comes as its page is at first: what a person opened or closed of it (data-fold) stays so.
let folds = new Map();

body.addEventListener("htmx:beforeSwap", ({ detail: { target } }) => {
  const known = [...target.querySelectorAll("details[data-fold]")];
  folds = new Map(known.map((element) => [element.id, element.open]));
});

body.addEventListener("htmx:afterSwap", () => {
  for (const [id, isOpen] of folds) {
    const element = document.getElementById(id);
    if (element instanceof HTMLDetailsElement) element.open = isOpen;
  }
  folds.clear();
});
