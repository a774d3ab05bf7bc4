// How far downloads are, as the agent says it; everything else of the list is fetched when it
// changes.

document.body.addEventListener("download-progress", (event) => {
  const { download, done_bytes: done, total_bytes: total, text } = event.detail;
  const row = document.getElementById(`download-${download}`);
  if (row?.dataset.state !== "running") return;
  const bar = row.querySelector("progress");
  bar.max = total || 1;
  bar.value = done;
  row.querySelector("[data-progress]").textContent = text;
});
