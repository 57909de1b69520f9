// Numbers and sentences beside the screen.

const find = (id) => document.getElementById(id);

/** Set a text; the same one again would cost a layout, and be read aloud again. */
function tell(id, text) {
  if (find(id).textContent !== text) find(id).textContent = text;
}
const plain = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

const CONNECTIONS = { connecting: "Connecting", open: "Connected" };

/** Tell how the connection stands. */
export function showConnection(name, text) {
  const next = { lost: "Trying again", ended: "Press Play to begin anew" };
  const told = CONNECTIONS[name] ?? (next[name] ? `${text}. ${next[name]}` : text);
  find("connection").dataset.state = name;
  document.body.classList.toggle("away", ["lost", "ended", "locked"].includes(name));
  tell("connection", told);
}

/** Tell which game is played. */
export function showSession(session, world) {
  const starts = { real: "beside the real game", image: "from your picture" };
  find("title").textContent = world.game;
  document.title = `${world.game} · genie-gym`;
  find("about").textContent = `${starts[session.start] ?? `start ${session.start}`}, seed ${session.seed}`;
}

/** Tell the keys: ways and fire, or so many numbers. */
export function showKeys(ways, count) {
  const arrows = { UP: "↑ W", LEFT: "← A", DOWN: "↓ S", RIGHT: "→ D", FIRE: "Space" };
  const keys = ways.length ? ways.map((way) => arrows[way]) : [`0 to ${Math.min(count, 10) - 1}`];
  const all = [...keys.map((key) => [key]), ["P", "play"], [".", "step"], [",", "back"], ["U", "uncertainty"]];
  find("keys").replaceChildren("Keys: ", ...all.flatMap(([key, meaning]) => {
    const box = document.createElement("kbd");
    box.textContent = key;
    return [box, meaning ? ` ${meaning} ` : " "];
  }));
}

/** Tell the numbers of a frame. */
export function showFrame(about, world, isLatent) {
  const { uncertainty: bits, action } = about;
  const name = isLatent ? `code ${action}` : (world.action_meanings[action] ?? `${action}`);
  tell("score", signed(about.score));
  tell("expected-reward", fixed(about.expected_reward, 3));
  tell("rate", about.steps_per_second ? plain.format(about.steps_per_second) : "–");
  tell("index", `${about.step}`);
  tell("action", action === null ? "–" : name);
  find("value-box").hidden = !world.has_value;
  tell("value", fixed(about.value, 2));
  tell("unsure", bits ? `${fixed(Math.max(...bits), 2)} bits` : "–");
  if (about.real) {
    const score = signed(about.real.score);
    tell("real-score", about.real.is_over ? `over, score ${score}` : `score ${score}`);
  }
}

/** Tell whether the game runs. It is read aloud, so it changes with the state alone. */
export function showPlaying(isOpen, isRunning, about) {
  const state = !isOpen ? ""
    : about.terminated ? "The game is over. Go back, or begin a new one"
    : about.truncated ? `The game stops here, after ${about.step} steps`
    : isRunning ? "Playing"
    : about.step === 0 ? "Press Play or a key of the game to begin"
    : "Paused";
  tell("play-state", state);
  tell("play", isRunning ? "Pause" : "Play");
}

let hiding = 0;

/** Show a sentence of the server for a while. */
export function showProblem(text) {
  const box = find("problem");
  clearTimeout(hiding);
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", hideProblem);
  const sentence = document.createElement("p");
  sentence.textContent = `${text[0].toUpperCase()}${text.slice(1)}`;
  box.replaceChildren(sentence, close);
  hiding = setTimeout(hideProblem, 12_000);
}

export function hideProblem() {
  find("problem").replaceChildren();
}

function signed(score) {
  return `${score > 0 ? "+" : ""}${Number(score.toFixed(2))}`.replace("-", "−");
}

function fixed(number, digits) {
  if (number === null) return "–";
  // Never "-0.000".
  const rounded = Number(number.toFixed(digits)) || 0;
  return rounded.toFixed(digits).replace("-", "−");
}
