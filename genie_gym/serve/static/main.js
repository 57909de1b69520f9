// The page: what is pressed goes to the game, what the game tells is shown.

import { Problem, saveEpisode, sendToken } from "./api.js";
import { Game } from "./game.js";
import { Held, actionOf, isOwnKey, keyMeaning, waysOf } from "./keys.js";
import { layPad, showHeld } from "./pad.js";
import {
  hideProblem, showConnection, showFrame, showKeys, showPlaying, showProblem, showSession,
} from "./readout.js";
import { Screen } from "./screen.js";
import { Settings } from "./settings.js";
import { Starts } from "./starts.js";

const find = (id) => document.getElementById(id);
const FRESH = { step: 0, can_rewind: 0 };

let world = null;
let settings = null;
let about = FRESH;
let isRunning = false;
/** The action that the server knows to be held, and whether a frame has come of it. */
let sent = 0;
let isPlayed = true;
let isRewinding = false;

const screen = new Screen(find("screen"));
const held = new Held(() => {
  showHeld(find("pad"), held);
  sendHeld();
  if (held.ways.length && about.step === 0 && !isRunning) run();
});
const form = new Settings((name, value) => {
  if (name !== "fps") game.send({ type: "settings", [name]: value });
  else if (isRunning) run();
});
const starts = new Starts((choice) => {
  hideProblem();
  focusScreen();
  find("stage").scrollIntoView({ block: "nearest" }); // on a phone it is far above
  game.start(choice);
});
const game = new Game({
  worlds: (worlds) => starts.setWorlds(worlds),
  session: beginSession,
  settings: takeSettings,
  frame: takeFrame,
  problem: refuse,
  state: (name, text) => {
    showConnection(name, text);
    if (name === "locked" && !find("lock").open) find("lock").showModal();
    if (!game.isOpen) isRunning = false;
    showPlaying(game.isOpen, isRunning, about);
  },
});

function beginSession(session) {
  const isOther = world?.name !== session.world;
  world = starts.named(session.world);
  settings = session.settings;
  [about, isRunning, sent, isPlayed, isRewinding] = [FRESH, false, 0, true, false];
  if (isOther) form.offer(world);
  const wishes = form.wishesBeside(settings);
  form.show(settings);
  starts.showSession(session);
  showSession(session, world);
  layActions();
  if (world.has_value) game.send({ type: "settings", show_value: true });
  for (const [name, value] of wishes) game.send({ type: "settings", [name]: value });
}

function takeSettings(told, fps) {
  const isOther = told.action_mode !== settings.action_mode;
  settings = told;
  isRunning = fps !== null;
  form.show(told);
  if (isOther) layActions();
  sendHeld();
  showPlaying(true, isRunning, about);
}

function takeFrame(frame) {
  about = frame.about;
  isPlayed ||= about.action === sent || settings.player !== "person";
  isRewinding = false;
  screen.show(frame, world);
  showFrame(about, world, settings.action_mode === "latent");
  showPlaying(true, isRunning, about);
  for (const id of ["back", "back-more"]) find(id).ariaDisabled = about.can_rewind === 0;
  sendHeld();
}

function refuse(text) {
  isRewinding = false;
  showProblem(text);
  if (settings) form.restore();
}

function layActions() {
  layPad(find("pad"), world, settings.action_mode === "latent", held);
  showKeys(hasWays() ? waysOf(world) : [], find("pad").children.length);
  held.reset();
}

function hasWays() {
  return settings.action_mode === "ale" && waysOf(world).length > 0;
}

/** Tell the server what is held. A tap shorter than a step waits until it has been played. */
function sendHeld() {
  if (!game.isOpen || !world || (isRunning && !isPlayed)) return;
  const action = hasWays() ? actionOf(world, held.ways) : held.number;
  if (action === sent) return;
  game.send({ type: "hold", action });
  [sent, isPlayed] = [action, false];
}

/** Whether a key means something here: of the numbers, only those of an action do. */
function isChoice(meaning) {
  return typeof meaning === "string" || (world && !hasWays() && meaning < find("pad").children.length);
}

function run() {
  game.send({ type: "run", fps: form.fps });
}

function togglePlay() {
  if (!game.isOpen) game.start();
  else if (isRunning) game.send({ type: "pause" });
  else run();
}

function step() {
  game.send({ type: "step" });
}

/** Go back as far as is remembered; one answer is awaited before the next. */
function back(numSteps) {
  const most = Math.min(numSteps, about.can_rewind);
  if (most === 0 || isRewinding) return;
  isRewinding = true;
  game.send({ type: "rewind", num_steps: most });
}

async function save(button, format) {
  button.ariaBusy = true;
  try {
    await saveEpisode(game.session.id, format);
  } catch (error) {
    showProblem(error instanceof Problem ? error.message : "The server does not answer");
  } finally {
    button.ariaBusy = false;
  }
}

function focusScreen() {
  find("screen").focus({ preventScroll: true });
}

/** Call `action` on a click, and over and over while the button is held. */
function onHold(button, action) {
  let timer = 0;
  button.addEventListener("click", action);
  button.addEventListener("pointerdown", () => {
    timer = setTimeout(() => (timer = setInterval(action, 70)), 400);
  });
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
    button.addEventListener(end, () => clearInterval(timer)); // timeouts and intervals share ids
  }
}

const SHORTCUTS = {
  p: togglePlay,
  ".": step,
  ",": () => back(1),
  u: () => find("settings").elements.show_uncertainty.click(),
};

find("play").addEventListener("click", togglePlay);
onHold(find("step"), step);
onHold(find("back"), () => back(1));
onHold(find("back-more"), () => back(Math.round(form.fps)));
find("again").addEventListener("click", () => game.again());
find("save-mp4").addEventListener("click", ({ target }) => save(target, "mp4"));
find("save-replay").addEventListener("click", ({ target }) => save(target, "replay"));

addEventListener("keydown", (event) => {
  if (isOwnKey(event) || event.ctrlKey || event.altKey || event.metaKey) return;
  const meaning = keyMeaning(event);
  const shortcut = SHORTCUTS[event.key.toLowerCase()];
  if (meaning === undefined && !shortcut) return;
  event.preventDefault();
  if (shortcut) shortcut();
  else if (!event.repeat && isChoice(meaning)) held.press(event.code, meaning);
});
addEventListener("keyup", (event) => held.release(event.code));
addEventListener("blur", () => held.releaseAll());
document.addEventListener("visibilitychange", () => {
  if (document.hidden && isRunning) game.send({ type: "pause" });
});

// Whoever uses the mouse goes on playing by keys; whoever came by keys stays where they are.
let isPointer = false;
addEventListener("pointerdown", () => (isPointer = true), true);
addEventListener("keydown", () => (isPointer = false), true);
for (const kind of ["click", "change"]) {
  document.addEventListener(kind, ({ target }) => {
    if (isPointer && target.closest("#stage, #settings")) setTimeout(focusScreen);
  });
}

find("lock").addEventListener("cancel", (event) => event.preventDefault());
find("lock-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await sendToken(find("token").value);
  } catch (error) {
    find("lock-problem").textContent =
      error.status === 401 ? "This token is wrong." : error.message || "The server does not answer.";
    return find("token").select();
  }
  find("lock").close();
  find("lock-form").reset();
  find("lock-problem").textContent = "";
  game.start();
});

// A token in the address has become a cookie by now; it shall not stay in sight or in the history.
if (location.search) history.replaceState(null, "", location.pathname);
game.start();
