// The form of a question: purposes and cards are added and removed on the spot, models are searched.
// Without this the same buttons send the form, and it comes back changed.

const BLANK = "__n__";
const MARKED = ["id", "name", "for", "value", "aria-labelledby", "aria-describedby"];
let next = 1000;

// --- rows --------------------------------------------------------------------------------------
function added(question, kind) {
  const rows = question.querySelector(`[data-rows="${kind}"]`);
  const copy = question.querySelector(`[data-blank="${kind}"]`).content.cloneNode(true);
  for (const element of copy.querySelectorAll("*"))
    for (const attribute of MARKED) {
      const value = element.getAttribute(attribute);
      if (value?.includes(BLANK)) element.setAttribute(attribute, value.replaceAll(BLANK, next));
    }
  next += 1;
  rows.append(copy);
  showSearch(question);
  return rows.lastElementChild;
}

function firstField(row) {
  return row.querySelector("input[type=text]");
}

function remove(question, row) {
  const kind = row.dataset.row;
  const near = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  firstField(near ?? added(question, kind)).focus();
}

// --- what if -----------------------------------------------------------------------------------
function fillCards(question, text) {
  question.querySelector('[data-rows="card"]').replaceChildren();
  for (const each of text.split("|")) {
    const [card, link] = each.split(";");
    const row = added(question, "card");
    firstField(row).value = card;
    row.querySelector("select").value = link;
  }
  question.querySelector('[name="rig"][value="what_if"]').checked = true;
  question.dispatchEvent(new Event("input", { bubbles: true }));
}

// --- searching ---------------------------------------------------------------------------------
function showSearch(question) {
  for (const field of question.querySelectorAll("[data-search]")) field.hidden = false;
}

function search(field) {
  const words = field.value.toLowerCase().split(/\s+/);
  for (const model of field.closest("[data-row]").querySelectorAll("[data-name]")) {
    const isFound = words.every((word) => model.dataset.name.includes(word));
    model.hidden = !isFound && !model.querySelector(":checked");
  }
}

// --- events ------------------------------------------------------------------------------------
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-question] button[name]");
  if (!button) return;
  const question = button.closest("[data-question]");
  event.preventDefault();
  if (button.name === "add") firstField(added(question, button.value)).focus();
  else if (button.name === "remove") remove(question, button.closest("[data-row]"));
  else if (button.name === "quick") fillCards(question, button.dataset.cards);
});

document.addEventListener("input", (event) => {
  if (event.target.matches?.("[data-question] [data-search]")) search(event.target);
});

document.addEventListener("keydown", (event) => {
  // Enter in the search is no question.
  if (event.key === "Enter" && event.target.matches?.("[data-search]")) event.preventDefault();
});

function start() {
  for (const question of document.querySelectorAll("[data-question]")) showSearch(question);
}

document.body.addEventListener("htmx:afterSettle", start);
start();
