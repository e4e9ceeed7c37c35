/** Calls of this service's API. The key stays in the session storage of this tab. */

const STORED_KEY = "rerank-serve.key";

export function storedKey() {
  return sessionStorage.getItem(STORED_KEY);
}

export function storeKey(key) {
  sessionStorage.setItem(STORED_KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(STORED_KEY);
}

/** An answer other than 2xx, or none at all; then `status` is 0 and `code` is `unreachable`. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "unreachable", param, id, retryAfterS }) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.id = id;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the service is stopped, starting or cut off, so that a later repeat may succeed. */
  get isAway() {
    return [0, 502, 503].includes(this.status);
  }
}

/** How long the page waits before it asks a service again that is away. */
export const AWAY_MS = 5_000;

/**
 * Send a request and return the answer with its headers.
 *
 * `path` is relative to the page, so that the page also works below a path prefix. `body` is sent
 * as JSON. Throws an `ApiError`, or the `AbortError` of `signal`.
 */
export async function send(method, path, { body, key = storedKey(), signal, headers } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method,
      signal,
      cache: "no-store",
      headers: {
        ...(key ? { authorization: `Bearer ${key}` } : {}),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service did not answer.", {});
  }
  if (!answer.ok) throw await problem(answer);
  return answer;
}

/** A new idempotency key: a request that is repeated with the same key is charged once. */
export function onceKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

const READS_MAX = 3;  // A gateway answers a few reports of one key at a time.
let reads = 0;
const waiting = [];

/** The JSON body of an answer. A few are asked for at a time. */
export async function get(path, signal) {
  if (reads >= READS_MAX) await new Promise((resolve) => waiting.push(resolve));
  reads += 1;
  try {
    return await (await send("GET", path, { signal })).json();
  } finally {
    reads -= 1;
    waiting.shift()?.();
  }
}

/** All rows of a list, page by page; `path` already has parameters or none. */
export async function getAll(path, signal) {
  const rows = [];
  const joint = path.includes("?") ? "&" : "?";
  let cursor = null;
  do {
    const next = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await get(`${path}${joint}limit=1000${next}`, signal);
    rows.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor);
  return rows;
}

/** Save an answer as a file. */
export async function download(path, name) {
  const answer = await send("GET", path);
  save(await answer.blob(), name);
}

/** Save all pages of a CSV list as one file; `path` has parameters. */
export async function downloadCsv(path, name) {
  const parts = [];
  let cursor = null;
  do {
    const next = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const answer = await send("GET", `${path}&format=csv${next}`);
    const text = await answer.text();
    parts.push(cursor ? text.slice(text.indexOf("\n") + 1) : text);  // One line of names is enough.
    cursor = answer.headers.get("x-next-cursor");
  } while (cursor);
  save(new Blob(parts, { type: "text/csv" }), name);
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);  // Some browsers read it later.
}

async function problem(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // A proxy in front of the service answers in another form.
  }
  const error = body.error ?? {};
  return new ApiError(error.message ?? `The service answered with status ${answer.status}.`, {
    status: answer.status,
    code: error.code ?? `status_${answer.status}`,
    param: error.param,
    id: body.id ?? answer.headers.get("x-request-id"),
    retryAfterS: Number(answer.headers.get("retry-after")) || undefined,
  });
}
