/** What went wrong, and what to do about it. */

import { AWAY_MS } from "./api.js";
import { html, useEffect, useState } from "./lib.js";

const BUSY = {
  title: "The service is busy",
  help: "It refused the request at once instead of letting it wait. Try again in a moment.",
};
const NOT_READY = {
  title: "The service cannot answer now",
  help: "The model or the database is starting or restarting. Try again in a moment.",
};
const STOPPED = {
  title: "The service does not answer",
  help: "It may be starting or stopped, or the network is down. Trying again does not charge twice.",
};
const LOST = {
  title: "The answer was lost",
  help: "The service may have done what was asked. Trying again does not charge it twice.",
};

/** Only someone with the whole key learns this. */
const ENDED = {
  title: "This API key no longer works",
  help: "Sign in with another key, or ask the operator of this service for one.",
};

const EXPLAINED = {
  unauthenticated: {
    title: "This API key is not valid",
    help: "Check that you copied the whole key. It begins with rk_.",
    isEnough: true,  // The message of the API is for programs.
  },
  forbidden: {
    title: "This API key may not do that",
    help: "Use another key, or ask its owner for one with the scope that is needed.",
  },
  out_of_credit: {
    title: "There is not enough credit",
    help: "The operator of this service adds credit. The page Usage shows your balance.",
  },
  spend_cap_reached: {
    title: "The monthly budget is used up",
    help: "Requests work again in the next month (UTC), or after the budget is raised.",
  },
  rate_limit_exceeded: {
    title: "The rate limit is reached",
    help: "The limit protects you and others. The page Usage shows your limits.",
  },
  overloaded: BUSY,
  no_replica: NOT_READY,
  ledger_unavailable: NOT_READY,
  reservation_closed: NOT_READY,
  no_gateway: NOT_READY,
  gateway_lost: LOST,
  status_502: STOPPED,
  status_503: NOT_READY,
  deadline_exceeded: {
    title: "The answer took too long",
    help: "Send fewer documents in a request.",
  },
  not_found: { title: "There is no such thing", help: "" },
  too_large: { title: "The request is too large", help: "" },
  invalid_request: { title: "The request is not valid", help: "" },
  unreachable: STOPPED,
};

/**
 * An error with its explanation. `retry` gets a button, which waits for `Retry-After`; `repeats`
 * says that the page also tries again by itself.
 */
export function Problem({ error, retry, repeats = false }) {
  const hasEnded = error.status === 401 && / (was revoked|has expired)\./.test(error.message);
  const known = hasEnded
    ? ENDED
    : EXPLAINED[error.code] ?? { title: "Something went wrong", help: "" };
  return html`
    <div class="problem" role="alert">
      <strong>${known.title}</strong>
      ${!known.isEnough && html`<p>${withoutWait(error.message)}</p>`}
      ${known.help && html`<p>${known.help}</p>`}
      ${error.id && html`<p class="muted">Request <code>${error.id}</code></p>`}
      ${repeats && html`<p>This page tries again every ${AWAY_MS / 1_000} seconds.</p>`}
      ${retry && html`<${Retry} error=${error} retry=${retry} />`}
    </div>
  `;
}

/** A message without the wait, which the button counts down. */
function withoutWait(message) {
  return message.replace(/ ?Retry in \d+ s\./, "");
}

function Retry({ error, retry }) {
  const [seconds, setSeconds] = useState(error.retryAfterS ?? 0);
  useEffect(() => {
    if (seconds <= 0) return undefined;
    const timer = setTimeout(() => setSeconds(seconds - 1), 1_000);
    return () => clearTimeout(timer);
  }, [seconds]);
  return html`
    <button type="button" class="small" disabled=${seconds > 0} onClick=${retry}>
      ${seconds > 0 ? `Try again in ${seconds} s` : "Try again"}
    </button>
  `;
}
