// Times and marks of the history as people read them, in the browser's zone.

import { MARKS } from "./chart.js";

/** As a field for date and time takes it. */
export function localText(seconds) {
  const date = new Date(seconds * 1000);
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

export const moment = (seconds) =>
  new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function stepText(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${seconds / 60} min`;
  return seconds < 86400 ? `${seconds / 3600} h` : `${seconds / 86400} d`;
}

export function markRow({ at, kind, text }, title) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = moment(at);
  row.append(head);
  const [sign] = MARKS[kind] ?? MARKS.run;
  row.insertCell().textContent = `${sign} ${title}`;
  row.insertCell().textContent = text;
  return row;
}
