// A WebSocket that comes back by itself: exponential back-off with jitter, at once when the
// network or the tab returns. What was missed meanwhile is the caller's to ask for, in open().

import { noteHeard } from "./link.js";
import { isLoggingIn, logInAgain } from "./session.js";

const FIRST_DELAY_MS = 300;
const LONGEST_DELAY_MS = 8000;
// Codes of the server: not logged in any more; not allowed; not there.
const LOGGED_OUT = 4401;
const FINAL = new Set([4403, 4404]);

/** What the panel wants to hear first: only its own pages can fetch it. */
async function freshToken() {
  const answer = await fetch("/socket-token/", {
    credentials: "same-origin",
    cache: "no-store",
    headers: { Accept: "application/json" },
  });
  if (!answer.ok) return { status: answer.status, token: "" };
  return { status: 200, token: (await answer.json()).token };
}

export function connect(path, handlers = {}) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
  let socket = null;
  let isGreeted = false;
  let attempts = 0;
  let timer = 0;
  let closed = false;

  function open() {
    clearTimeout(timer);
    const opened = new WebSocket(url);
    const fetched = freshToken().catch(() => ({ status: 0, token: "" }));
    socket = opened;
    isGreeted = false;
    opened.onopen = () => greet(opened, fetched);
    opened.onmessage = (event) => {
      noteHeard();
      handlers.message?.(JSON.parse(event.data));
    };
    opened.onclose = (event) => left(event.code);
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
    const again = attempts > 0;
    attempts = 0;
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
