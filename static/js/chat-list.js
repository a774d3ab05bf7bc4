// The list groups conversations by the days of the reader's own time zone.

import { below } from "./root.js";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) {
  const about = `path=${below("/chat/")}; max-age=31536000; samesite=lax`;
  document.cookie = `omni_zone=${zone}; ${about}`;
}

// One is chosen above; with three beside it a conversation has all the lanes it can have.
const MOST_BESIDE = 3;

for (const form of document.querySelectorAll("[data-new-chat]")) {
  const boxes = [...form.querySelectorAll("[name=beside]")];
  const offered = boxes.filter((box) => !box.disabled);
  const blind = form.querySelector("[data-blind]");
  const update = () => {
    const first = form.elements.deployment.value;
    const beside = boxes.filter((box) => box.checked && box.value !== first).length;
    const isFull = beside >= MOST_BESIDE;
    for (const box of offered) {
      const isFirst = box.value === first;
      if (isFirst) box.checked = false;
      box.closest("label").hidden = isFirst;
      box.disabled = isFirst || (isFull && !box.checked);
    }
    if (blind) {
      // Left or right: for exactly two.
      blind.disabled = beside !== 1;
      blind.checked &&= !blind.disabled;
    }
  };
  form.addEventListener("change", update);
  update();
}
