// Buttons for those who play without a keyboard.

import { waysOf } from "./keys.js";

const SIGNS = { UP: "↑", DOWN: "↓", LEFT: "←", RIGHT: "→", FIRE: "Fire" };
const NAMES = { UP: "Up", DOWN: "Down", LEFT: "Left", RIGHT: "Right", FIRE: "Fire" };

/** Lay the buttons out anew: ways and fire, or one button a number. */
export function layPad(pad, world, isLatent, held) {
  const ways = isLatent ? [] : waysOf(world);
  const count = isLatent ? world.num_latent_actions : world.num_actions;
  pad.classList.toggle("numbers", ways.length === 0);
  const buttons = ways.length
    ? ways.map((way) => wayButton(way, held))
    : Array.from({ length: count }, (_, number) => numberButton(number, isLatent, held));
  pad.replaceChildren(...buttons);
  showHeld(pad, held);
}

/** Light up what is held. */
export function showHeld(pad, held) {
  for (const button of pad.children) {
    const isHeld = button.dataset.way
      ? held.ways.includes(button.dataset.way)
      : Number(button.dataset.number) === held.number;
    button.setAttribute("aria-pressed", isHeld);
  }
}

function wayButton(way, held) {
  const button = makeButton(SIGNS[way], NAMES[way]);
  button.dataset.way = way;
  const press = () => held.press(button, way);
  const release = () => held.release(button);
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    press();
  });
  button.addEventListener("lostpointercapture", release);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => {
    if (["Space", "Enter"].includes(event.code) && !event.repeat) press();
  });
  button.addEventListener("keyup", release);
  button.addEventListener("blur", release);
  return button;
}

function numberButton(number, isLatent, held) {
  const button = makeButton(number, `${isLatent ? "Latent action" : "Action"} ${number}`);
  button.dataset.number = number;
  button.addEventListener("click", () => held.press(button, number));
  return button;
}

function makeButton(sign, name) {
  const button = document.createElement("button");
  button.textContent = sign;
  button.setAttribute("aria-label", name);
  return button;
}
