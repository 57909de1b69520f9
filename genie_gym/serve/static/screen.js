// Frames on the screen: enlarged by whole device pixels, with the uncertainty above.

/** Entropy of a token from which on the overlay is densest. */
const FULL_BITS = 1;
/** Height that is kept for what stands around the screen where there is room beside it. */
const AROUND = 340;
const WIDE = 900;

/** Give a canvas a size in pixels of its own; that clears it and costs memory, so only a new one. */
function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** Draw a frame of RGB bytes. */
function drawFrame(canvas, about, pixels) {
  resize(canvas, about.width, about.height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(about.width, about.height);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
    image.data[to] = pixels[from];
    image.data[to + 1] = pixels[from + 1];
    image.data[to + 2] = pixels[from + 2];
    image.data[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Draw one cell a token, the denser the less sure it was. */
function drawOverlay(canvas, world, bits) {
  resize(canvas, world.columns, world.rows);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, world.columns, world.rows);
  bits.forEach((entropy, token) => {
    context.fillStyle = `rgb(94 234 212 / ${0.6 * Math.min(entropy / FULL_BITS, 1)})`;
    context.fillRect(token % world.columns, Math.floor(token / world.columns), 1, 1);
  });
}

/** The imagined game, and the real one beside it. */
export class Screen {
  #root;
  #size = { height: 64, width: 64 };

  constructor(root) {
    this.#root = root;
    new ResizeObserver(() => this.#fit()).observe(root.parentElement);
    addEventListener("resize", () => this.#fit());
  }

  /** Show a frame message of a world. */
  show({ about, imagined, real }, world) {
    const [left, right] = this.#root.querySelectorAll("figure");
    const isNew = about.height !== this.#size.height || about.width !== this.#size.width;
    const isAlone = right.hidden;
    right.hidden = !real;
    left.querySelector("figcaption").hidden = !real;
    drawFrame(left.querySelector(".frame"), about, imagined);
    if (real) drawFrame(right.querySelector(".frame"), about, real);

    const overlay = left.querySelector(".overlay");
    overlay.hidden = !about.uncertainty;
    if (about.uncertainty) drawOverlay(overlay, world, about.uncertainty);
    if (isNew || isAlone !== !real) {
      this.#size = about;
      this.#fit();
    }
  }

  #fit() {
    const shown = [...this.#root.querySelectorAll("figure")].filter((figure) => !figure.hidden);
    const gap = parseFloat(getComputedStyle(this.#root).columnGap) || 0;
    const width = (this.#root.clientWidth - gap * (shown.length - 1)) / shown.length;
    const height = innerWidth >= WIDE ? Math.max(innerHeight - AROUND, 128) : innerHeight;
    const room = Math.min(width / this.#size.width, height / this.#size.height);
    const scale = Math.max(Math.floor(room * devicePixelRatio), 1) / devicePixelRatio;
    for (const picture of this.#root.querySelectorAll(".picture")) {
      picture.style.width = `${this.#size.width * scale}px`;
      picture.style.height = `${this.#size.height * scale}px`;
    }
  }
}
