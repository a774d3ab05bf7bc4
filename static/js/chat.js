// One conversation: follows its socket, sends, stops, edits, asks again.

import { localTimes, toast } from "./app.js";
import "./chat-list.js";
import { Composer } from "./chat-composer.js";
import { laneName, Lanes } from "./chat-lanes.js";
import { Scroller } from "./chat-scroll.js";
import { Stream } from "./chat-stream.js";
import {
  articleOf,
  refreshThread,
  replaceArticle,
  showBelow,
  streamingArticles,
  takeEnding,
} from "./chat-thread.js";
import { Votes } from "./chat-votes.js";
import { announce } from "./redraw.js";
import { below } from "./root.js";
import { connect } from "./socket.js";

const root = document.getElementById("chat");
const announcer = root.querySelector("[data-announce]");
const scroller = new Scroller(root);
const streams = new Map();
new Lanes(root);
const composer = new Composer(root, {
  send: (text, attachments) => act("send", { text, attachments }),
  stop: () => act("stop"),
});
const votes = new Votes(root, { act, tell: (text) => (announcer.textContent = text) });
let refreshing = null;
let refreshAgain = false;

// Asked while the page still connects: sent as soon as it has.
let early = null;
let hasOpened = false;
// The link was lost since the last snapshot.
let isBack = false;

function act(type, fields = {}) {
  const sent = socket.send({ type, ...fields });
  if (!sent && !hasOpened) {
    early = { type, ...fields };
    return true;
  }
  if (!sent) toast("The panel is not connected right now. Nothing was sent.", "bad");
  return sent;
}

// --- what the server says ----------------------------------------------------------------------
const handlers = {
  async snapshot({ version }) {
    const wasLost = isBack;
    isBack = false;
    if (version !== document.getElementById("thread").dataset.version) await refresh();
    if (wasLost) composer.cameBack(lastQuestion(), lastImages());
  },
  "chat.delta"({ message, track, offset, text }) {
    const stream = streamOf(message);
    if (stream && !stream.take(track, offset, text)) resync(message);
    scroller.follow();
  },
  "chat.state"({ message, state, data }) {
    if (state === "changed") {
      composer.taken();
      return changed(data);
    }
    if (state === "deleted") return location.assign(below("/chat/"));
    if (state === "streaming") return streaming(message, data);
    return finished(message, state, data);
  },
  error({ text, fix }) {
    composer.restore();
    toast(`${text} ${fix}`.trim(), "bad");
  },
};

function lastQuestion() {
  return [...root.querySelectorAll("[data-said]")].at(-1)?.textContent.trim() ?? "";
}

function lastImages() {
  const article = [...root.querySelectorAll("[data-said]")].at(-1)?.closest("article");
  return [...(article?.querySelectorAll(".images a") ?? [])]
    .map((link) => link.getAttribute("href"))
    .join();
}

function streamOf(id) {
  const article = articleOf(id);
  if (!article || article.dataset.state !== "streaming") return null;
  if (streams.get(id)?.article !== article) streams.set(id, new Stream(article));
  return streams.get(id);
}

function streaming(id, { settled, through, live }) {
  const stream = streamOf(id);
  if (!stream) return;
  if (live) stream.live(live);
  if (settled && !stream.settle(settled, through)) resync(id);
  scroller.follow();
}

const ENDS = { done: "is complete", stopped: "was stopped" };

function finished(id, state, { html, vote, compared }) {
  const who = laneName(articleOf(id));
  streams.delete(id);
  if (!html || !replaceArticle(id, html)) refresh();
  if (vote) showBelow(vote);
  if (compared) showBelow(compared);
  // The heads of several lanes know how many answers would go with a lane.
  announce("answers-changed");
  announcer.textContent = `The answer${who && ` of ${who}`} ${ENDS[state] ?? "failed"}.`;
  shown();
}

function resync(id) {
  socket.send({ type: "resync", message: id, have: streams.get(id)?.have.content ?? 0 });
}

/** The thread is another: its end came along, or all of it is fetched. */
function changed(data) {
  if (refreshing || !takeEnding(data)) return refresh();
  followAnswers(new Set(data.begun));
  return shown();
}

/** What was said of an answer before it stood on the page is asked for; of one that has just begun
    nothing was. */
function followAnswers(begun = new Set()) {
  for (const article of streamingArticles()) {
    const id = Number(article.dataset.message);
    if (!streams.has(id))
      announcer.textContent = root.dataset.lanes > 1 ? "The answers begin." : "The answer begins.";
    streamOf(id);
    if (!begun.has(id)) resync(id);
  }
}

/** Fetches the thread; what is asked for meanwhile is fetched once afterwards. */
async function refresh() {
  if (refreshing) {
    refreshAgain = true;
    return;
  }
  refreshing = refreshThread(root.dataset.threadUrl);
  try {
    await refreshing;
    followAnswers();
    shown();
  } catch (error) {
    toast("The conversation could not be brought up to date. Reload the page.", "bad");
    throw error;
  } finally {
    refreshing = null;
    if (refreshAgain) {
      refreshAgain = false;
      refresh();
    }
  }
}

function shown() {
  votes.shown();
  composer.busy(streamingArticles().length > 0);
  localTimes(root);
  scroller.follow();
}

// --- what the person does ----------------------------------------------------------------------
const idOf = (element) => Number(element.closest("article").dataset.message);

const clicks = {
  "[data-stop-one]": (button) => act("stop", { message: idOf(button) }),
  "[data-fill]": (button) =>
    act("fill", { lane: Number(button.closest("[data-lane]").dataset.lane) }),
  "[data-again]": (button) => act("again", { message: idOf(button) }),
  "[data-again-both]": (button) => act("again", { message: Number(button.dataset.againBoth) }),
  "[data-select]": (button) => act("select", { message: Number(button.dataset.select) }),
  "[data-edit]": (button) => showEdit(button.closest("article"), true),
  "[data-edit-cancel]": (button) => showEdit(button.closest("article"), false),
  "[data-copy-answer]": (button) =>
    copy(button.closest("article").querySelector("[data-source]").content.textContent),
  "[data-copy-code]": (button) =>
    copy(button.closest(".code-block").querySelector("pre").textContent),
};

root.addEventListener("click", (event) => {
  for (const [selector, handle] of Object.entries(clicks)) {
    const button = event.target.closest(selector);
    if (button) handle(button);
  }
});

root.addEventListener("text-restored", (event) => {
  const article =
    event.target.matches("[data-edit-form] textarea") && event.target.closest("article");
  if (article) showEdit(article, true, event.target.value);
});

function showEdit(article, open, text = null) {
  const said = article.querySelector("[data-said]");
  const form = article.querySelector("[data-edit-form]");
  const input = form.querySelector("textarea");
  said.hidden = open || !said.textContent;
  form.hidden = !open;
  if (open) {
    input.value = text ?? said.textContent;
    input.focus();
  }
}

root.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-edit-form]")) return;
  event.preventDefault();
  const text = event.target.querySelector("textarea").value.trim();
  const mayBeEmpty = "hasImages" in event.target.dataset;
  if ((text || mayBeEmpty) && act("edit", { message: idOf(event.target), text })) scroller.pin();
});

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.", "ok");
  } catch {
    toast("The browser does not allow copying here.", "bad");
  }
}

document.addEventListener("click", (event) => {
  for (const menu of root.querySelectorAll("[data-menu][open]"))
    if (!menu.contains(event.target)) menu.open = false;
});
// An open menu is not taken away under the pointer; what changed shows when it is closed.
let isMissed = false;
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.target.querySelector?.("[data-menu][open]")) return;
  event.detail.shouldSwap = false;
  isMissed = true;
});
root.addEventListener(
  "toggle",
  (event) => {
    if (!isMissed || event.target.open) return;
    isMissed = false;
    announce("resync");
  },
  true,
);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const menu = root.querySelector("[data-menu][open]");
  if (menu) menu.open = false;
  else if (streamingArticles().length) act("stop");
});

const socket = connect(`/ws/chat/${root.dataset.conversation}/`, {
  message: (data) => handlers[data.type]?.(data),
  open(again) {
    isBack = again;
    hasOpened = true;
    if (early) socket.send(early);
    early = null;
  },
});
scroller.pin();
shown();
