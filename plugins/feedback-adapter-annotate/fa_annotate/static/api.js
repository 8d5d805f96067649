// Talks to the server. What it says of an error is shown as it is.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, query = {}) {
  return read(fetch(withQuery(path, query)));
}

export async function tell(path, query, body) {
  const headers = { "Content-Type": "application/json" };
  return read(fetch(withQuery(path, query), { method: "POST", headers, body: JSON.stringify(body) }));
}

export async function upload(file) {
  return read(fetch(withQuery("/api/photos", { name: file.name }), { method: "POST", body: file }));
}

export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function read(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refused("The program doesn't answer. Is it still running?", 0);
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(content.error ?? `Something failed (${response.status}).`, response.status);
  return content;
}
