// The list: two reports are ticked before they are compared. The form: a baseline is compared.

const live = document.getElementById("benchmarks-live");
const form = document.querySelector(".bench-form");

// --- list --------------------------------------------------------------------------------------
function offerComparison() {
  const button = live.querySelector("[data-compare]");
  if (!button) return;
  const ticked = live.querySelectorAll("[name=compare]:checked").length;
  button.disabled = ticked !== 2;
  live.querySelector("[data-compare-hint]").textContent =
    ticked === 2
      ? "The older of the two comes first."
      : ticked > 2
        ? `${ticked} are ticked; two can be compared.`
        : `Tick two of the reports below${ticked ? ": one more" : ""}.`;
}

if (live) {
  live.addEventListener("change", offerComparison);
  live.addEventListener("htmx:afterSwap", offerComparison);
  offerComparison();
}

// --- form --------------------------------------------------------------------------------------
// Which one is the baseline is always one of those that are ticked.
function keepBaseline({ target }) {
  const baselines = [...form.elements].filter((field) => field.name === "baseline");
  const isTicked = (name) => form.querySelector(`#deployment-${CSS.escape(name)}`).checked;
  if (target.name === "baseline" && !isTicked(target.value)) {
    form.querySelector(`#deployment-${CSS.escape(target.value)}`).click();
  } else if (target.name === "deployment") {
    const now = baselines.find((field) => field.checked);
    if (now && isTicked(now.value)) return;
    const next = baselines.find((field) => isTicked(field.value));
    for (const field of baselines) field.checked = field === next;
  }
}

// What was chosen while parts of the form were on their way stays chosen.
let swaps = null;
let scenario = null;

function chosenScenario() {
  return form.querySelector("[name=scenario]:checked")?.value;
}

if (form) {
  form.addEventListener("change", keepBaseline);
  form.addEventListener("change", ({ target }) => {
    if (target.name === "swaps") swaps = target.checked;
  });
  form.addEventListener("htmx:beforeSwap", () => {
    scenario = chosenScenario();
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    if (swaps !== null) form.elements.swaps.checked = swaps;
    const chosen = [...form.elements].find(
      (field) => field.name === "scenario" && field.value === scenario,
    );
    if (chosen) chosen.checked = true;
  });
}
