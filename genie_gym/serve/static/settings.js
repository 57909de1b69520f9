// The form of settings. The server has the last word: what it tells is what the form shows.

const form = document.getElementById("settings");

/** The value of a control as the server's messages have it. */
function valueOf(input) {
  if (input.type === "checkbox") return input.checked;
  return input.type === "range" ? Number(input.value) : input.value;
}

/** Wishes of the player that outlive a game; `onChange` gets name and value of each new one. */
export class Settings {
  #wishes = {};
  #told = {};

  constructor(onChange) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => {
      this.#wishes[target.name] = valueOf(target);
      this.#describe();
      onChange(target.name, valueOf(target));
    });
  }

  get fps() {
    return Number(form.elements.fps.value);
  }

  /** Offer what a world can do; what was wished for another one is forgotten. */
  offer(world) {
    this.#wishes = {};
    form.elements.fps.value = world.fps;
    const can = {
      policy: world.has_policy, planner: world.has_planner, latent: world.num_latent_actions > 0,
    };
    for (const [value, isThere] of Object.entries(can)) {
      const input = form.querySelector(`input[value=${value}]`);
      input.disabled = !isThere;
      input.closest("label").title = isThere ? "" : `This world has no ${value}`;
    }
  }

  /** Show what the server told; a slider that is being dragged stays with the finger. */
  show(settings) {
    this.#told = settings;
    for (const [name, value] of Object.entries(settings)) {
      const control = form.elements[name];
      if (!control) continue;
      if (control.type === "checkbox") control.checked = value;
      else if (!(control instanceof Element) || !control.matches(":active")) control.value = value;
    }
    this.#describe();
  }

  /** Take a refused change back. */
  restore() {
    for (const name of Object.keys(this.#wishes)) {
      if (name in this.#told && this.#wishes[name] !== this.#told[name]) delete this.#wishes[name];
    }
    this.show(this.#told);
  }

  /** Settings that a new game should take over. */
  wishesBeside(settings) {
    return Object.entries(this.#wishes).filter(
      ([name, value]) => name in settings && settings[name] !== value,
    );
  }

  #describe() {
    for (const input of form.querySelectorAll("input[type=range]")) {
      input.closest("label").querySelector(".number").textContent = input.value;
    }
    document.getElementById("legend").hidden = !form.elements.show_uncertainty.checked;
  }
}
