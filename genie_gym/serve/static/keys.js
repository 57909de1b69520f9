// Which keys and buttons are held, and which action they mean.

const WAYS = {
  ArrowUp: "UP", KeyW: "UP", ArrowDown: "DOWN", KeyS: "DOWN",
  ArrowLeft: "LEFT", KeyA: "LEFT", ArrowRight: "RIGHT", KeyD: "RIGHT", Space: "FIRE",
};
export const WORDS = ["UP", "LEFT", "RIGHT", "DOWN", "FIRE"];

/** The words in an action's name: RIGHTFIRE has two. */
function wordsOf(meaning) {
  return WORDS.filter((word) => meaning.includes(word));
}

/** The ways that a world's actions point on the screen, and FIRE; empty if they have no names. */
export function waysOf(world) {
  const words = new Set(world.action_meanings.flatMap(wordsOf));
  return WORDS.filter((way) => {
    const turned = Object.keys(world.turned).filter((word) => world.turned[word] === way);
    return turned.length ? turned.some((word) => words.has(word)) : words.has(way) && !world.turned[way];
  });
}

/** The action that says most of what is held, where newer words count more; else NOOP. */
export function actionOf(world, held) {
  const weight = (word) => {
    const places = [held.indexOf(word), held.indexOf(world.turned[word])];
    const newest = Math.max(...places);
    return newest < 0 ? -Infinity : 2 ** newest;
  };
  let [best, most] = [Math.max(world.action_meanings.indexOf("NOOP"), 0), 0];
  world.action_meanings.forEach((meaning, action) => {
    const total = wordsOf(meaning).reduce((sum, word) => sum + weight(word), 0);
    if (total > most) [best, most] = [action, total];
  });
  return best;
}

/** The way or number that a pressed key stands for; undefined if it is no key of the game. */
export function keyMeaning(event) {
  return /^[0-9]$/.test(event.key) ? Number(event.key) : WAYS[event.code];
}

/** What is held now, whatever holds it: several keys and buttons may hold one way. */
export class Held {
  #holders = new Map();
  #number = 0;
  #onChange;

  /** `onChange` is called after every change. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** A holder (key code or button) presses a way; a number stays until the next one. */
  press(holder, meaning) {
    if (typeof meaning === "number") this.#number = meaning;
    else this.#holders.set(holder, meaning);
    this.#onChange();
  }

  release(holder) {
    if (this.#holders.delete(holder)) this.#onChange();
  }

  releaseAll() {
    this.#holders.clear();
    this.#onChange();
  }

  /** Hold nothing, and number 0: the numbers mean something else now. */
  reset() {
    this.#number = 0;
    this.releaseAll();
  }

  /** The ways that are held, oldest first. */
  get ways() {
    return [...this.#holders.values()];
  }

  get number() {
    return this.#number;
  }
}

/** Whether a focused control needs a key for itself. */
export function isOwnKey(event) {
  const target = event.target;
  if (target.closest("[role=listbox], dialog, select")) return true;
  if (target.matches("input")) return target.type !== "checkbox" || event.code === "Space";
  return target.closest("button, a") !== null && event.code === "Space";
}
