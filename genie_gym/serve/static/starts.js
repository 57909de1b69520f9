// What a game begins from: a world's starts, the real game, or a picture.

import { startPicture } from "./api.js";

const find = (id) => document.getElementById(id);

/** Choosing calls `onChoice` with the fields of `POST /sessions`. */
export class Starts {
  #worlds = [];
  #shown = null;
  #image = null;
  #offered = null;
  #onChoice;

  constructor(onChoice) {
    this.#onChoice = onChoice;
    find("world").addEventListener("change", () => this.#choose({}));
    find("any-start").addEventListener("click", () => this.#choose({}));
    find("real-start").addEventListener("click", () => this.#choose({ start: "real" }));
    find("image").addEventListener("change", ({ target }) => {
      this.#take(target.files[0]);
      target.value = ""; // the same file may be chosen again
    });
    for (const input of document.getElementsByName("fit")) {
      input.addEventListener("change", () => this.#image && this.#offer(this.#image));
    }
    this.#listenToThumbnails();
    this.#listenToDrops();
  }

  /** A world of the server by its name. */
  named(name) {
    return this.#worlds.find((world) => world.name === name);
  }

  /** Take over the worlds that the server has now. */
  setWorlds(worlds) {
    this.#worlds = worlds;
    find("world").replaceChildren(...worlds.map((world) => new Option(world.name, world.name)));
    find("world-box").hidden = worlds.length < 2;
  }

  /** Mark where the game that is played began; only then are the pictures asked for. */
  showSession(session) {
    find("world").value = session.world;
    this.#showWorld(this.named(session.world));
    this.#showImage(session.start === "image" ? this.#offered : null);
    const options = [...find("thumbnails").children];
    for (const option of options) option.setAttribute("aria-selected", false);
    const chosen = options[session.start];
    if (!chosen) return;
    chosen.setAttribute("aria-selected", true);
    this.#rove(chosen);
    const box = find("thumbnails");
    // Not scrollIntoView, which would move the page as well.
    const top = chosen.offsetTop;
    if (top < box.scrollTop || top + chosen.offsetHeight > box.scrollTop + box.clientHeight) {
      box.scrollTop = top - box.clientHeight / 2;
    }
  }

  #choose(fields) {
    this.#onChoice({ world: find("world").value, ...fields });
  }

  #offer(image) {
    this.#offered = image;
    const fit = document.querySelector("input[name=fit]:checked").value;
    this.#choose({ image, fit });
  }

  #showImage(image) {
    const preview = find("preview");
    preview.hidden = image === null;
    if (image === this.#image) return;
    this.#image = image;
    URL.revokeObjectURL(preview.src);
    if (image) preview.src = URL.createObjectURL(image);
    else preview.removeAttribute("src");
  }

  /** Begin from a file; its bytes are kept, for coming back after the server was away. */
  async #take(file) {
    if (!file) return;
    this.#offer(new File([await file.arrayBuffer()], file.name, { type: file.type }));
  }

  #showWorld(world) {
    if (this.#shown === world.name) return;
    this.#shown = world.name;
    find("real-start").hidden = !world.has_real_game;
    const options = Array.from({ length: world.num_starts }, (_, index) => {
      const option = document.createElement("img");
      option.src = startPicture(world.name, index);
      option.alt = `Start ${index}`;
      option.loading = "lazy";
      option.tabIndex = index === 0 ? 0 : -1;
      option.setAttribute("role", "option");
      return option;
    });
    find("thumbnails").replaceChildren(...options);
  }

  #rove(option) {
    for (const other of find("thumbnails").children) other.tabIndex = -1;
    option.tabIndex = 0;
  }

  #listenToThumbnails() {
    const box = find("thumbnails");
    const pick = (option) => this.#choose({ start: [...box.children].indexOf(option) });
    box.addEventListener("click", ({ target }) => target !== box && pick(target));
    box.addEventListener("keydown", (event) => {
      if (["Enter", " "].includes(event.key)) {
        event.preventDefault();
        return pick(event.target);
      }
      const columns = getComputedStyle(box).gridTemplateColumns.split(" ").length;
      const moves = {
        ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
        Home: -Infinity, End: Infinity,
      };
      const move = moves[event.key];
      if (move === undefined) return;
      event.preventDefault();
      const place = [...box.children].indexOf(event.target) + move;
      const option = box.children[Math.min(Math.max(place, 0), box.children.length - 1)];
      this.#rove(option);
      option.focus();
    });
  }

  #listenToDrops() {
    const hasFile = (event) => event.dataTransfer.types.includes("Files");
    const mark = (isOver) => document.body.classList.toggle("dropping", isOver);
    addEventListener("dragover", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      mark(true);
    });
    addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
    addEventListener("drop", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      mark(false);
      this.#take(event.dataTransfer.files[0]);
    });
  }
}
