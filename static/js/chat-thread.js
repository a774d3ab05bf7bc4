// The messages on the page: fetched as one fragment, exchanged turn by turn and one by one, so that
// what did not change stays.

import { logInAgain } from "./session.js";

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

export function articleOf(id) {
  return document.getElementById(`message-${id}`);
}

export function replaceArticle(id, html) {
  const fresh = parsed(html).querySelector("article");
  const old = articleOf(id);
  if (!fresh || !old) return false;
  old.replaceWith(fresh);
  return true;
}

/** Brings the page to the thread that the server has now; returns the articles that are being
    written. */
export async function refreshThread(url) {
  const response = await fetch(url, {
    headers: { "HX-Request": "true" },
    credentials: "same-origin",
  });
  if (response.status === 401) return logInAgain();
  if (!response.ok) throw new Error(`the thread was answered with ${response.status}`);
  const fresh = parsed(await response.text()).getElementById("thread");
  const thread = document.getElementById("thread");
  if (thread.dataset.lanesVersion !== fresh.dataset.lanesVersion) return location.reload();
  show(thread, [...fresh.children].map(keptTurn), fresh.dataset);
}

/** The same with the last turns that the server has sent; false where the page does not stand
    before those. */
export function takeEnding({ html, turns, version, lanes_version: lanesVersion, title }) {
  const thread = document.getElementById("thread");
  if (!html || thread.dataset.lanesVersion !== lanesVersion) return false;
  const fresh = [...parsed(html).children];
  const kept = [...thread.children].slice(0, turns.length - fresh.length);
  const isSame =
    kept.length === turns.length - fresh.length &&
    kept.every((turn, i) => turn.id === `turn-${turns[i]}`);
  const isStreaming = (turn) => turn.querySelector('article[data-state="streaming"]');
  if (!isSame || kept.some(isStreaming)) return false;
  show(thread, [...kept, ...fresh.map(keptTurn)], { version, title });
  return true;
}

function show(thread, turns, { version, title }) {
  if (!sameChildren(thread, turns)) thread.replaceChildren(...turns);
  thread.dataset.version = version;
  showTitle(title);
  document.querySelector("[data-hello]").hidden = turns.length > 0;
}

/** The turn as it stands on the page, if it is still the same; else the fresh one with the articles
    that are. */
function keptTurn(fresh) {
  const old = document.getElementById(fresh.id);
  if (old?.dataset.version === fresh.dataset.version && sameArticles(old, fresh)) return old;
  for (const article of fresh.querySelectorAll("article")) {
    const shown = articleOf(article.dataset.message);
    if (shown?.dataset.version === article.dataset.version) article.replaceWith(shown);
  }
  return fresh;
}

const versions = (turn) =>
  [...turn.querySelectorAll("article")].map((article) => article.dataset.version).join();
const sameArticles = (old, fresh) => versions(old) === versions(fresh);

function sameChildren(thread, turns) {
  return (
    thread.children.length === turns.length && turns.every((turn, i) => turn === thread.children[i])
  );
}

/** What stands below the answers of a turn once the last has ended: the vote, who was ahead. */
export function showBelow(html) {
  const fresh = parsed(html).firstElementChild;
  const old = fresh && document.getElementById(fresh.id);
  if (old) old.replaceWith(fresh);
}

function showTitle(title) {
  if (!title) return;
  document.querySelector("[data-title]").textContent = title;
  document.title = `${title} · Omni`;
  const entry = document.querySelector('#conversations [aria-current="page"] .truncate');
  if (entry) entry.textContent = title;
}

export function streamingArticles() {
  return [...document.querySelectorAll('#thread article[data-state="streaming"]')];
}
