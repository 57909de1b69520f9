// The game at the server: opens a session, stays connected to it, and comes back when it was lost.

import { Problem, Unreachable, closeSession, getWorlds, openSession } from "./api.js";

const DELAYS = [0.5, 1, 2, 4];
const LOCKED = 4401;
/** Closed for good: coming back by itself would only bring the same end again. */
const ENDED = new Set([1003, 1007, 1009, 4403, 4408, 4409]);
const REASONS = {
  1001: "The server is shutting down",
  1011: "The server had an error of its own",
  4404: "The server does not know this game any more",
  4408: "Nobody played for a while, so the server ended the game",
  4409: "Somebody else plays this game",
  4410: "The game has expired",
  4429: "Too many requests from here",
};

/** Take a binary message apart: metadata, and the pictures as RGB bytes. */
export function readFrame(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const length = about.height * about.width * 3;
  const imagined = new Uint8Array(buffer, 4 + size, length);
  const real = about.real && new Uint8Array(buffer, 4 + size + length, length);
  return { about, imagined, real };
}

/**
 * One game at a time. The listener has a method for all that happens:
 * worlds(list), session(session), settings(settings, fps), frame(frame), problem(text), and
 * state(name, text) with the names connecting, open, lost, ended and locked.
 */
export class Game {
  #listener;
  #socket = null;
  #choice = undefined;
  #session = null;
  #turn = 0;
  #tries = 0;
  #timer = 0;

  constructor(listener) {
    this.#listener = listener;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** The session that is played, or was played last; null before the first. */
  get session() {
    return this.#session;
  }

  /** Open a game and leave the one before. Where the new one is refused, the old one goes on. */
  async start(choice = this.#choice) {
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    this.#listener.state("connecting");
    try {
      if (!this.isOpen) {
        const worlds = await getWorlds();
        if (turn !== this.#turn) return;
        this.#listener.worlds(worlds);
        choice ??= { world: worlds[0].name };
      }
      const session = await openSession(choice);
      if (turn !== this.#turn) return closeSession(session.id);
      // Coming back begins the same game, so its seed is kept.
      this.#choice = { ...choice, seed: session.seed };
      this.#connect(session);
    } catch (error) {
      if (turn === this.#turn) this.#refused(error, choice);
    }
  }

  /** The same start with another seed. */
  again() {
    return this.start(this.#choice && { ...this.#choice, seed: undefined });
  }

  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  #connect(session) {
    this.#leave();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/sessions/${session.id}/play`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#read(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#closed(code, reason);
    };
    this.#socket = socket;
    this.#session = session;
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #read(data) {
    if (typeof data !== "string") return this.#listener.frame(readFrame(data));
    const message = JSON.parse(data);
    if (message.type === "error") return this.#listener.problem(message.detail);
    if (message.type === "settings") return this.#listener.settings(message.settings, message.fps);
    this.#tries = 0;
    this.#listener.session(message);
    this.#listener.state("open");
  }

  #refused(error, choice) {
    if (error instanceof Unreachable) return this.#retry("The server does not answer", choice);
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) return this.#lock(choice);
    if (error.status === 429 || error.status === 503) {
      // The place that this page holds itself may be the one that is missing.
      if (error.kind === "too-many-sessions") this.#leave();
      return this.#retry(error.message, choice);
    }
    this.#listener.problem(error.message);
    if (this.isOpen) this.#listener.state("open");
    else this.#listener.state("ended", "No game");
  }

  #closed(code, reason) {
    this.#socket = null;
    const text = REASONS[code] ?? (reason || "The server is gone");
    if (code === LOCKED) this.#lock(this.#choice);
    else if (ENDED.has(code)) this.#listener.state("ended", text);
    else this.#retry(text, this.#choice);
  }

  #lock(choice) {
    this.#choice = choice;
    this.#listener.state("locked", "Token needed");
  }

  #retry(text, choice) {
    const seconds = DELAYS[Math.min(this.#tries++, DELAYS.length - 1)];
    this.#timer = setTimeout(() => this.start(choice), seconds * 1000);
    this.#listener.state("lost", text);
  }
}
