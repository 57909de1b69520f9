// What the server answers over HTTP. The calls stand in docs/serve.md.

/** The server refused: `message` is its own sentence. */
export class Problem extends Error {
  constructor({ type = "", title = "", status, detail = "" }) {
    super(detail || title);
    this.status = status;
    this.kind = type.split(":").at(-1);
  }
}

/** Nobody answered. */
export class Unreachable extends Error {}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: options.cache ?? "no-store" });
  } catch {
    throw new Unreachable();
  }
  if (response.ok) return response;
  const isProblem = response.headers.get("content-type") === "application/problem+json";
  const told = isProblem ? await response.json() : { detail: await response.text() };
  throw new Problem({ status: response.status, ...told });
}

export async function getWorlds() {
  return (await request("worlds")).json();
}

/** The address of a start's picture. */
export function startPicture(world, index) {
  return `worlds/${encodeURIComponent(world)}/starts/${index}`;
}

/** Open a session; `choice` has the fields of the form, `image` a Blob. */
export async function openSession(choice) {
  const form = new FormData();
  for (const [name, value] of Object.entries(choice)) {
    if (value !== undefined && value !== null) form.append(name, value);
  }
  return (await request("sessions", { method: "POST", body: form })).json();
}

/** End a session that nobody will connect to. */
export async function closeSession(id) {
  try {
    await request(`sessions/${id}`, { method: "DELETE" });
  } catch {
    // The server frees it itself after a while.
  }
}

/** Fetch the episode so far, and hand it to the browser as a download. */
export async function saveEpisode(id, format) {
  const response = await request(`sessions/${id}/episode?format=${format}`);
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition"))[1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show the token once; a cookie that scripts cannot read carries it from then on. */
export async function sendToken(token) {
  await request(`health?token=${encodeURIComponent(token)}`);
}
