// What every page has: CSRF for htmx, confirmation, copying, toasts, theme, relative times, live
// state.

import { watchLink } from "./link.js";
import { announce } from "./redraw.js";
import { followSession, isLoggingIn } from "./session.js";
import { connect } from "./socket.js";

const body = document.body;
const csrfToken = document.querySelector('meta[name="csrf-token"]')?.content;

// --- htmx --------------------------------------------------------------------------------------
body.addEventListener("htmx:configRequest", (event) => {
  if (csrfToken) event.detail.headers["X-CSRFToken"] = csrfToken;
});
// A part that fetches itself tries again, and the line on top says that the panel is away.
const FETCHES_ITSELF = "[hx-trigger*='every '], [hx-trigger*='resync'], [hx-trigger^='load']";
const isByItself = ({ elt, requestConfig }) =>
  requestConfig.verb === "get" && elt.matches(FETCHES_ITSELF);

// What is fetched once, when its page opens, is fetched when the panel is back.
const missed = new Set();
function missOnce({ elt }) {
  if (elt.matches("[hx-trigger^='load']")) missed.add(elt);
}
body.addEventListener("resync", () => {
  for (const elt of missed) if (elt.isConnected) htmx.trigger(elt, "again");
  missed.clear();
});

body.addEventListener("htmx:sendError", ({ detail }) => {
  missOnce(detail);
  if (isLoggingIn() || isByItself(detail)) return;
  toast("The panel cannot be reached. Nothing was changed.", "bad");
});
body.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status === 401) return;
  if (status >= 500) missOnce(event.detail);
  if (status === 403) toast("You are not allowed to do that.", "bad");
  else toast(`The panel answered with an error (${status}). Nothing was changed.`, "bad");
});

// What asks every few seconds rests while nobody looks.
body.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.detail.elt.matches("[hx-trigger*='every ']")) event.preventDefault();
});

// --- toasts ------------------------------------------------------------------------------------
export function toast(text, kind = "info") {
  // Said already, and still to be read.
  const said = [...document.querySelectorAll("#toasts .toast")];
  if (said.some((box) => box.dataset.kind === kind && box.querySelector("p")?.textContent === text))
    return;
  const template = document.getElementById("toast-template");
  const box = template.content.firstElementChild.cloneNode(true);
  box.dataset.kind = kind;
  box.querySelector("p").textContent = text;
  document.getElementById("toasts").append(box);
  dismissLater(box);
}

function dismissLater(box) {
  box.querySelector("button")?.addEventListener("click", () => box.remove());
  if (box.dataset.kind !== "bad") setTimeout(() => box.remove(), 6000);
}

body.addEventListener("toast", (event) =>
  toast(event.detail.text ?? event.detail.value, event.detail.kind),
);
body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "toasts" && event.detail.target.lastElementChild)
    dismissLater(event.detail.target.lastElementChild);
});
document.querySelectorAll("#toasts .toast").forEach(dismissLater);

// --- confirmation ------------------------------------------------------------------------------
function confirmed(question, verb) {
  const dialog = document.getElementById("confirm-dialog");
  dialog.querySelector("p").textContent = question;
  dialog.querySelector("[value=yes]").textContent = verb || "Confirm";
  dialog.returnValue = "";
  dialog.showModal();
  dialog.querySelector("[value=no]").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A live part of the page may have been drawn again while the question was open. What was agreed to
// is done all the same: nothing is sent from an element that is not in the page.
function bringBack(form) {
  if (form.isConnected) return;
  form.hidden = true;
  body.append(form);
  form.addEventListener("htmx:afterRequest", () => form.remove(), { once: true });
}

// The same while an answer is on its way: what it says would reach nobody from an element that is
// not in the page. Parts that fetch themselves are left alone: a newer one stands in their place.
body.addEventListener("htmx:beforeRequest", ({ detail: { elt, requestConfig } }) => {
  if (requestConfig.verb === "get") return;
  elt.addEventListener("htmx:beforeOnLoad", () => bringBack(elt), { once: true });
});

body.addEventListener("htmx:confirm", async (event) => {
  if (!event.detail.question) return;
  event.preventDefault();
  if (await confirmed(event.detail.question, event.detail.elt.dataset.verb)) {
    bringBack(event.detail.elt);
    event.detail.issueRequest(true);
  }
});
document.addEventListener(
  "submit",
  async (event) => {
    const form = event.target;
    // A form that does several things asks by its button.
    const asks = event.submitter?.dataset.confirm ? event.submitter : form;
    if (!asks.dataset.confirm || asks.dataset.confirmed) return;
    const { submitter } = event;
    event.preventDefault();
    if (await confirmed(asks.dataset.confirm, asks.dataset.verb)) {
      asks.dataset.confirmed = "yes";
      bringBack(form);
      form.requestSubmit(submitter);
    }
  },
  true,
);

// --- copying -----------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    toast("Copied.", "ok");
  } catch {
    // Without TLS there is no clipboard, except for what is selected.
    if (source.select) source.select();
    else getSelection().selectAllChildren(source);
    if (document.execCommand("copy")) toast("Copied.", "ok");
    else toast("The browser does not allow copying; the text is selected, press Ctrl+C.", "info");
  }
});

// --- theme -------------------------------------------------------------------------------------
document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("omni-theme", next);
  document.dispatchEvent(new CustomEvent("theme-changed"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  document.dispatchEvent(new CustomEvent("theme-changed")),
);

// --- times -------------------------------------------------------------------------------------
const STEPS = [
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
  [Infinity, "year"],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function relativeText(date, now = Date.now()) {
  let value = (date.getTime() - now) / 1000;
  for (const [size, unit] of STEPS) {
    if (Math.abs(value) < size)
      return unit === "second" && Math.abs(value) < 10
        ? "just now"
        : relative.format(Math.round(value), unit);
    value /= size;
  }
  return "";
}

const SHORT = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" };

function shownTime(wanted, date) {
  if ("relative" in wanted) return relativeText(date);
  return "short" in wanted ? date.toLocaleString([], SHORT) : date.toLocaleString();
}

export function localTimes(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const date = new Date(element.dateTime);
    element.title = date.toLocaleString();
    element.textContent = shownTime(element.dataset, date);
  }
}

// In a low window the list of pages may be longer than the screen.
document.querySelector(".nav-links [aria-current]")?.scrollIntoView({ block: "nearest" });
followSession(toast);
localTimes();
body.addEventListener("htmx:afterSettle", (event) =>
  localTimes(event.detail.target.parentElement ?? document),
);
setInterval(() => localTimes(), 20000);

// --- live state --------------------------------------------------------------------------------
function follow() {
  let lostTimer = 0;
  const lost = document.getElementById("link-lost");
  const isAway = lost.textContent;
  document.addEventListener("sockets-refused", ({ detail }) => {
    lost.textContent = detail;
    lost.hidden = false;
  });
  connect("/ws/state/", {
    open: () => announce("resync"),
    message(data) {
      if (data.type === "deployment.changed") {
        announce(`deployment-${data.deployment}`, data);
        announce("deployments-changed", data);
      } else if (data.type === "library.changed") announce("library-changed", data);
      else if (data.type === "download.changed") announce("downloads-changed", data);
      else if (data.type === "benchmark.changed") announce("benchmarks-changed", data);
      else if (data.type === "keys.changed") announce("keys-changed", data);
      else if (data.type === "alerts.changed") announce("alerts-changed", data);
      else if (data.type === "download.progress") announce("download-progress", data);
    },
    status(up) {
      clearTimeout(lostTimer);
      // A blink while a page loads is no news; two seconds without the panel are.
      if (up) {
        lost.hidden = true;
        lost.textContent = isAway;
      } else
        lostTimer = setTimeout(() => {
          lost.hidden = false;
        }, 2000);
    },
  });
  watchLink((up) => {
    lost.hidden = up;
  });
}

// htmx listens once the page is whole: what the socket says before that would be lost.
if (body.dataset.live === "yes" && document.getElementById("link-lost")) {
  if (document.readyState === "complete") follow();
  else document.addEventListener("DOMContentLoaded", follow, { once: true });
}
