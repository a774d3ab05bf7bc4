// A WebSocket that comes back by itself: exponential back-off with jitter, at once when the
// network or the tab returns. What was missed meanwhile is the caller's to ask for, in open().

import { noteHeard, noteOpened } from "./link.js";
import { below } from "./root.js";
import { isLoggingIn, logInAgain } from "./session.js";

const FIRST_DELAY_MS = 300;
const LONGEST_DELAY_MS = 8000;
// Codes of the server: not logged in any more; not allowed; not there.
const LOGGED_OUT = 4401;
const FINAL = new Set([4403, 4404]);
// So often a socket does not open although the panel answers, until it is said what that means.
const FAILURES_TILL_TOLD = 3;
const NO_SOCKETS =
  "The panel answers, but WebSockets do not reach it, so nothing here is live. Is a proxy before" +
  " the panel? It has to pass on the headers Upgrade and Connection: see docs/proxy.md.";

/** What the panel wants to hear first: only its own pages can fetch it. */
async function freshToken() {
  const answer = await fetch(below("/socket-token/"), {
    credentials: "same-origin",
    cache: "no-store",
    headers: { Accept: "application/json", "X-Page-Origin": location.origin },
  });
  const { token = "", error = "" } = await answer.json();
  return { status: answer.status, token, error };
}

/** No socket can open, and the reason is not that the panel is away. */
function tellWhy(text) {
  document.dispatchEvent(new CustomEvent("sockets-refused", { detail: text }));
}

export function connect(path, handlers = {}) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${below(path)}`;
  let socket = null;
  let isGreeted = false;
  let attempts = 0;
  let failures = 0;
  let timer = 0;
  let closed = false;

  function open() {
    clearTimeout(timer);
    const opened = new WebSocket(url);
    const fetched = freshToken().catch(() => ({ status: 0, token: "" }));
    socket = opened;
    isGreeted = false;
    opened.onopen = () => greet(opened, fetched);
    fetched.then(({ status, error }) => {
      if (status === 403 && error) tellWhy(error);
    });
    opened.onmessage = (event) => {
      noteHeard();
      handlers.message?.(JSON.parse(event.data));
    };
    opened.onclose = (event) => {
      if (!isGreeted) fetched.then(({ token }) => failed(Boolean(token)));
      left(event.code);
    };
  }

  /** It did not open; with a token in hand the panel itself is there. */
  function failed(isPanelThere) {
    failures = isPanelThere ? failures + 1 : 0;
    if (failures >= FAILURES_TILL_TOLD) tellWhy(NO_SOCKETS);
  }

  async function greet(opened, fetched) {
    const { status, token } = await fetched;
    // Closed meanwhile; onclose knows.
    if (opened.readyState !== WebSocket.OPEN) return;
    if (!token) {
      opened.onclose = null;
      opened.close();
      left(status === 401 ? LOGGED_OUT : 0);
      return;
    }
    opened.send(JSON.stringify({ type: "hello", token }));
    isGreeted = true;
    noteOpened();
    const again = attempts > 0;
    attempts = 0;
    failures = 0;
    handlers.status?.(true);
    handlers.open?.(again);
  }

  function left(code) {
    socket = null;
    isGreeted = false;
    if (closed || isLoggingIn()) return;
    handlers.status?.(false, code);
    if (code === LOGGED_OUT) {
      logInAgain();
      return;
    }
    if (FINAL.has(code)) return;
    attempts += 1;
    const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempts - 1));
    timer = setTimeout(open, delay * (0.7 + Math.random() * 0.6));
  }

  function retryNow() {
    if (!closed && !socket && attempts > 0) open();
  }

  /** Lets go of one that nothing comes through any more; its closing would wait for the other side.
      */
  function abandon() {
    if (closed || !socket) return;
    const old = socket;
    Object.assign(old, { onopen: null, onmessage: null, onclose: null });
    old.close();
    left(0);
  }

  document.addEventListener("link-lost", abandon);
  // One that is still connecting counts the seconds of a link that was lost.
  document.addEventListener("link-found", () => {
    if (socket && !isGreeted) abandon();
    retryNow();
  });
  window.addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", () => document.hidden || retryNow());
  open();

  return {
    /** True when the message went out; false while the connection is down. */
    send(message) {
      if (!isGreeted || socket?.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(message));
      return true;
    },
    close() {
      closed = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}
