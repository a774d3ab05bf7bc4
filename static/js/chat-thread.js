// The messages on the page: fetched as one fragment, exchanged one by one so that what did not change stays.

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

/** Brings the page to the thread that the server has now; returns the articles that are being written. */
export async function refreshThread(url) {
  const response = await fetch(url, { headers: { "HX-Request": "true" }, credentials: "same-origin" });
  if (!response.ok) throw new Error(`the thread was answered with ${response.status}`);
  const fresh = parsed(await response.text()).getElementById("thread");
  const thread = document.getElementById("thread");
  const articles = [...fresh.querySelectorAll("article")].map((article) => {
    const old = articleOf(article.dataset.message);
    return old && old.dataset.version === article.dataset.version ? old : article;
  });
  if (!sameChildren(thread, articles)) thread.replaceChildren(...articles);
  thread.dataset.version = fresh.dataset.version;
  showTitle(fresh.dataset.title);
  document.querySelector("[data-hello]").hidden = articles.length > 0;
}

function sameChildren(thread, articles) {
  const shown = thread.querySelectorAll("article");
  return shown.length === articles.length && articles.every((article, i) => article === shown[i]);
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
