// Images beside the text to be sent: chosen, pasted or dropped, each uploaded at once and shown
// small until its message is sent. What the panel refuses is said here and nothing else is lost.

import { logInAgain } from "./session.js";

const csrfToken = document.querySelector('meta[name="csrf-token"]')?.content;
const MIB = 1 << 20;
// Photos of phones are larger than what may be sent; engines make them smaller still.
const LONGEST_SIDE_PX = 2048;
const JPEG_QUALITY = 0.9;

export class Attachments {
  constructor(root, form, done) {
    this.form = form;
    this.done = done;
    this.box = form.querySelector("[data-attached]");
    this.note = form.querySelector("[data-attach-note]");
    this.warning = form.querySelector("[data-lanes-warning]");
    this.input = form.querySelector("[data-attach]");
    this.not = form.querySelector("[data-attach-not]");
    this.key = `omni-images-${root.dataset.conversation}`;
    this.coming = 0;
    this.queue = Promise.resolve();
    this.put(this.kept());
    this.input?.addEventListener("change", () => this.chosen());
    this.not?.addEventListener("click", () => this.refuseAll());
    form.addEventListener("paste", (event) => this.pasted(event));
    root.addEventListener("dragover", (event) => this.dragged(event));
    root.addEventListener("dragleave", () => form.classList.remove("dropping"));
    root.addEventListener("drop", (event) => this.dropped(event));
  }

  // --- what is there ---------------------------------------------------------------------------
  /** id, address and name of each, in the order of their coming. */
  list() {
    return [...this.box.children]
      .filter((item) => item.dataset.id)
      .map((item) => ({ id: Number(item.dataset.id), url: item.dataset.url, name: item.title }));
  }

  /** These and no others. */
  put(images) {
    this.box.replaceChildren(...images.map((image) => this.filled(newItem(image.name), image)));
    this.changed();
  }

  kept() {
    return this.input ? JSON.parse(sessionStorage.getItem(this.key) ?? "[]") : [];
  }

  /** False while some are still on their way, which is said. */
  areReady() {
    if (this.coming) this.say("Images are still being uploaded.");
    else this.say("");
    return !this.coming;
  }

  changed() {
    this.box.hidden = !this.box.children.length;
    if (this.warning) this.warning.hidden = this.box.hidden;
    if (this.input) sessionStorage.setItem(this.key, JSON.stringify(this.list()));
  }

  say(text) {
    this.note.textContent = text;
  }

  refuseAll() {
    this.say(document.getElementById(this.not.getAttribute("aria-describedby")).textContent.trim());
  }

  // --- where they come from --------------------------------------------------------------------
  chosen() {
    const files = [...this.input.files];
    // The same file may be chosen again once it was removed.
    this.input.value = "";
    this.add(files);
  }

  pasted(event) {
    const files = [...event.clipboardData.files];
    // A text editor puts a picture of the text beside it.
    if (!files.length || event.clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    this.add(files);
  }

  dragged(event) {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    this.form.classList.add("dropping");
  }

  dropped(event) {
    this.form.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    this.add([...event.dataTransfer.files]);
  }

  // --- adding and removing ---------------------------------------------------------------------
  /** As many as a message may have; one after the other, so that they keep their order. */
  add(files) {
    if (!this.input) return this.refuseAll();
    const most = Number(this.input.dataset.most);
    const taken = files.slice(0, Math.max(0, most - this.box.children.length));
    const left = files.length - taken.length;
    this.remarks = left ? [`A message has at most ${most} images; ${left} left out.`] : [];
    this.say(this.remarks.join(" "));
    for (const file of taken) {
      const item = newItem(file.name);
      this.box.append(item);
      this.coming += 1;
      this.queue = this.queue.then(() => this.upload(item, file)).catch(() => {});
    }
    this.changed();
    this.done();
  }

  async upload(item, file) {
    try {
      const { data, remark } = await readable(file, this.largestBytes);
      const image = await this.sent(data);
      this.filled(item, { ...image, name: file.name });
      if (remark) this.remark(file, remark);
    } catch (error) {
      item.remove();
      this.remark(file, error.message);
    } finally {
      this.coming -= 1;
      this.changed();
    }
  }

  get largestBytes() {
    return Number(this.input.dataset.largestBytes);
  }

  remark(file, text) {
    this.remarks.push(`${file.name || "The image"}: ${text}`);
    this.say(this.remarks.join(" "));
  }

  /** Throws what the panel, or this page before it, says against it. */
  async sent(file) {
    if (file.size > this.largestBytes) {
      const size = (file.size / MIB).toFixed(1);
      throw new Error(`it has ${size} MiB; an image may have ${this.largestBytes / MIB} MiB.`);
    }
    let response;
    try {
      response = await fetch(this.input.dataset.attach, {
        method: "POST",
        body: file,
        credentials: "same-origin",
        headers: {
          Accept: "application/json",
          "Content-Type": "application/octet-stream",
          "X-CSRFToken": csrfToken,
        },
      });
    } catch {
      throw new Error("the panel could not be reached. Attach it again.");
    }
    if (response.status === 401) logInAgain();
    if (response.ok) return response.json();
    throw new Error(await reason(response));
  }

  /** The item with its picture and a button that takes it away. */
  filled(item, { id, url, name }) {
    const image = new Image();
    image.alt = name || "Pasted image";
    image.addEventListener("error", () => {
      if (!item.isConnected) return;
      item.remove();
      this.changed();
      this.say(`${image.alt} is no longer there. Attach it again.`);
    });
    image.src = url;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn remove";
    button.textContent = "×";
    button.setAttribute("aria-label", `Remove ${image.alt}`);
    button.addEventListener("click", () => this.remove(item));
    item.dataset.id = id;
    item.dataset.url = url;
    item.removeAttribute("aria-busy");
    item.replaceChildren(image, button);
    return item;
  }

  remove(item) {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    fetch(`${item.dataset.url}remove/`, {
      method: "POST",
      credentials: "same-origin",
      headers: { "X-CSRFToken": csrfToken },
      // It is thrown away some day, if not now.
    }).catch(() => {});
    item.remove();
    this.changed();
    this.say(`${item.title || "The image"} was removed.`);
    const button = next?.querySelector("button");
    if (button) button.focus();
    else this.input.focus();
  }
}

function newItem(name) {
  const item = document.createElement("li");
  item.title = name;
  item.setAttribute("aria-busy", "true");
  return item;
}

/** What is sent of a file: WebP, which llama.cpp does not read, as PNG, and what is larger than an
    image may be smaller, as JPEG, which is remarked. */
async function readable(file, largestBytes) {
  const isLarge = file.size > largestBytes;
  if (!isLarge && file.type !== "image/webp") return { data: file };
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    // Then the panel says what is wrong with it.
    return { data: file };
  }
  if (!isLarge) return { data: (await drawn(picture, 1, "image/png")) ?? file };
  const scale = Math.min(1, LONGEST_SIDE_PX / Math.max(picture.width, picture.height));
  const data = (await drawn(picture, scale, "image/jpeg")) ?? file;
  return { data, remark: `it was made smaller, from ${picture.width} × ${picture.height} pixels.` };
}

function drawn(picture, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  const context = canvas.getContext("2d");
  if (type === "image/jpeg") {
    // What is transparent would be black.
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((made) => canvas.toBlob(made, type, JPEG_QUALITY));
}

async function reason(response) {
  try {
    const { error } = await response.json();
    return `${error.text} ${error.fix}`.trim();
  } catch {
    // A proxy before the panel has a limit of its own.
    if (response.status === 413) return "it is larger than what the panel can be sent at once.";
    return `it was answered with ${response.status}. Reload the page and attach it again.`;
  }
}
