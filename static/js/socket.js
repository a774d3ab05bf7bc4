// A WebSocket that comes back by itself: exponential back-off with jitter, at once when the
// network or the tab returns. What was missed meanwhile is the caller's to ask for, in open().

const FIRST_DELAY_MS = 300;
const LONGEST_DELAY_MS = 8000;

export function connect(path, handlers = {}) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
  let socket = null;
  let attempts = 0;
  let timer = 0;
  let closed = false;

  function open() {
    clearTimeout(timer);
    socket = new WebSocket(url);
    socket.onopen = () => {
      const again = attempts > 0;
      attempts = 0;
      handlers.status?.(true);
      handlers.open?.(again);
    };
    socket.onmessage = (event) => handlers.message?.(JSON.parse(event.data));
    socket.onclose = (event) => {
      socket = null;
      if (closed) return;
      handlers.status?.(false, event.code);
      // The server refuses whoever is not logged in (4401) or not allowed (4403); trying on is of no use.
      if (event.code === 4401) return location.reload();
      if (event.code === 4403 || event.code === 4404) return undefined;
      attempts += 1;
      const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempts - 1));
      timer = setTimeout(open, delay * (0.7 + Math.random() * 0.6));
      return undefined;
    };
  }

  function retryNow() {
    if (!closed && !socket && attempts > 0) open();
  }

  window.addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", () => document.hidden || retryNow());
  open();

  return {
    /** True when the message went out; false while the connection is down. */
    send(message) {
      if (socket?.readyState !== WebSocket.OPEN) return false;
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
