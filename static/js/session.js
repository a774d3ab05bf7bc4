// A session that has ended: what was typed is kept in this tab, the log-in page opens, and
// afterwards the page comes back with the text in it.

const KEY = "omni-typed";
const body = document.body;
let isLeaving = false;

// --- keeping -----------------------------------------------------------------------------------
const isText = (field) =>
  field.matches("textarea, select, input:not([type=password], [type=hidden], [type=file])");
const isTicked = (field) => field.type === "checkbox" || field.type === "radio";

function isChanged(field) {
  if (isTicked(field)) return field.checked !== field.defaultChecked;
  if (field.matches("select"))
    return [...field.options].some((option) => option.selected !== option.defaultSelected);
  return field.value !== field.defaultValue;
}

function valueOf(field) {
  return isTicked(field) ? field.checked : field.value;
}

/** By name and place among those of the same name: ids may be given again by the server. */
function fieldsOf(form) {
  const seen = new Map();
  return [...form.elements]
    .filter((field) => (field.name || field.id) && isText(field))
    .map((field) => {
      const name = field.name || field.id;
      const place = seen.get(name) ?? 0;
      seen.set(name, place + 1);
      return { field, key: `${name} ${place}` };
    });
}

const formKey = (form) => form.id || form.getAttribute("action") || "";

function keep(forms) {
  const kept = [];
  for (const form of forms) {
    for (const { field, key } of fieldsOf(form)) {
      if (isChanged(field)) kept.push([formKey(form), key, valueOf(field)]);
    }
  }
  if (!kept.length) return;
  sessionStorage.setItem(
    KEY,
    JSON.stringify({ user: body.dataset.user, page: location.pathname, kept }),
  );
}

// --- coming back -------------------------------------------------------------------------------
function put(field, value) {
  if (isTicked(field)) field.checked = value;
  else field.value = value;
  field.closest("details:not([open])")?.setAttribute("open", "");
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.dispatchEvent(new CustomEvent("text-restored", { bubbles: true }));
}

/** Whether anything that was typed before the log-in is back on this page. */
function bringBack() {
  const { user, page, kept } = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  sessionStorage.removeItem(KEY);
  // Only for the same person, and only on the way back: a form that was sent and taken is not
  // filled in again.
  const logIn = new URL(body.dataset.logIn, location.href).pathname;
  const cameFrom = document.referrer && new URL(document.referrer).pathname;
  if (!kept || user !== body.dataset.user || page !== location.pathname || cameFrom !== logIn)
    return false;
  const places = new Map();
  for (const form of document.forms)
    for (const { field, key } of fieldsOf(form)) places.set(`${formKey(form)}\n${key}`, field);
  const found = kept
    .map(([form, key, value]) => [places.get(`${form}\n${key}`), value])
    .filter(([field]) => field);
  for (const [field, value] of found) put(field, value);
  return found.length > 0;
}

// --- what the page does ------------------------------------------------------------------------
/** Opens the log-in page, once, whoever finds out first that the session has ended. */
export function logInAgain() {
  if (isLeaving) return;
  isLeaving = true;
  // Whoever holds text that is on its way brings it back into its field now.
  document.dispatchEvent(new CustomEvent("session-ended"));
  keep(document.forms);
  location.assign(
    `${body.dataset.logIn}?next=${encodeURIComponent(location.pathname + location.search)}`,
  );
}

export const isLoggingIn = () => isLeaving;

/** `tell` says that text is back. */
export function followSession(tell) {
  if (!body.dataset.user) return;
  body.addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.status !== 401) return;
    event.preventDefault();
    logInAgain();
  });
  // A form that leaves the page may find the session ended as well.
  document.addEventListener("submit", (event) => {
    if (!event.defaultPrevented && event.target.method === "post") keep([event.target]);
  });
  if (bringBack()) tell("What you had typed is back. It was not sent.");
}
