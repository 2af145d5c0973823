// What goes to the server and comes back: JSON, events, and tensors as bytes. The key is told by the address the studio
// was opened with, behind its #, and is taken out of it at once.
let key = "";
const STORED = "cutaway-key";

/** Takes the key out of the address, or what an earlier page of this studio kept. */
export function takeKey(): void {
  const given = new URLSearchParams(location.hash.slice(1));
  key = given.get("key") ?? "";
  given.delete("key");
  try {
    if (key) {
      localStorage.setItem(STORED, key);
      history.replaceState(null, "", `#${given}`);
    } else key = localStorage.getItem(STORED) ?? "";
  } catch {
    // a frame of another page has no storage: the key is held here alone
  }
}

async function asked(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { authorization: `Bearer ${key}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const how = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  const answer = await fetch(path, how);
  if (!answer.ok) {
    const told = (await answer.json().catch(() => ({}))) as { error?: string | { message?: string } };
    const words = typeof told.error === "string" ? told.error : told.error?.message;
    throw new Error(words ?? `The server answered ${answer.status}.`);
  }
  return answer;
}

export async function ask<Answer>(path: string, body?: unknown, signal?: AbortSignal): Promise<Answer> {
  return (await (await asked(path, body, signal)).json()) as Answer;
}

/** Numbers as they came: each is worth `scale`. */
export interface Numbers {
  values: Uint8Array | Float32Array;
  scale: number;
  shape: number[];
}

export async function numbers(name: string, query = "", signal?: AbortSignal): Promise<Numbers> {
  const answer = await asked(`/studio/tensors/${name}${query}`, undefined, signal);
  const bytes = await answer.arrayBuffer();
  const values = answer.headers.get("x-dtype") === "u8" ? new Uint8Array(bytes) : new Float32Array(bytes);
  const shape = (answer.headers.get("x-shape") ?? "").split(",").map(Number);
  return { values, scale: Number(answer.headers.get("x-scale")), shape };
}

/** A tensor, or the matrix `at` of it. */
export async function tensor(name: string, query = ""): Promise<Float32Array> {
  const { values, scale } = await numbers(name, query);
  return values instanceof Float32Array ? values : Float32Array.from(values, (code) => code * scale);
}

/** A file that the server makes. */
export async function file(path: string, body: unknown): Promise<Blob> {
  return (await asked(path, body)).blob();
}

type Told = (name: string, data: Record<string, unknown>) => void;

/** Reads server-sent events until they end. */
export async function events(path: string, body: unknown, told: Told, signal: AbortSignal): Promise<void> {
  const answer = await asked(path, body, signal);
  const reader = (answer.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop() ?? "";
    for (const block of blocks) {
      const [name, data] = block.split("\n").map((line) => line.slice(line.indexOf(":") + 2));
      told(name, JSON.parse(data) as Record<string, unknown>);
    }
  }
}

/** Offers a file to be saved. */
export function offer(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
