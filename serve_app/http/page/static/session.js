/** The API key of this tab: the form that asks for it, and what it may do. */

import { AWAY_MS, forgetKey, send, storeKey, storedKey } from "./api.js";
import { forgetKept, html, useCallback, useEffect, useRef, useState } from "./lib.js";
import { Problem } from "./problem.js";
import { Field, Form } from "./ui.js";

/**
 * The session of the tab as `{key, error, loading, enter, leave, retry}`.
 *
 * `key` is the answer of `GET /v1/key`, or null without a valid key.
 */
export function useSession() {
  const [state, setState] = useState({ key: null, loading: Boolean(storedKey()) });

  const check = useCallback(async () => {
    if (!storedKey()) return;
    setState((before) => ({ key: null, error: before.error, loading: !before.error }));
    try {
      setState({ key: await facts(storedKey()), loading: false });
    } catch (error) {
      if (error.status === 401) forgetKey();
      setState({ key: null, error, loading: false });
    }
  }, []);
  useEffect(() => void check(), []);

  async function enter(text) {
    const key = await facts(text);
    storeKey(text);
    setState({ key, loading: false });
  }
  function leave() {
    forgetKey();
    forgetKept();
    setState({ key: null, loading: false });
  }
  return { ...state, enter, leave, retry: check };
}

async function facts(key) {
  return (await send("GET", "v1/key", { key })).json();
}

export function SignIn({ session, title, children }) {
  const input = useRef();
  const { error, retry } = session;
  const isAway = error && error.status !== 401;
  useEffect(() => {
    if (!isAway) input.current.focus();
  }, [isAway]);
  useEffect(() => {
    if (!isAway) return undefined;
    const timer = setTimeout(retry, AWAY_MS);
    return () => clearTimeout(timer);
  }, [isAway, error, retry]);
  if (isAway) {
    return html`<${Problem} error=${error} retry=${retry} repeats />`;
  }
  return html`
    <section class="signin panel">
      <h1 tabindex="-1">${title}</h1>
      ${children}
      ${session.error && html`<${Problem} error=${session.error} />`}
      <${Form}
        submit="Continue"
        onSubmit=${(fields) => session.enter(fields.get("key").trim())}
      >
        <${Field}
          label="API key"
          help="It begins with rk_. It stays in this tab, and is forgotten when you close it or sign out."
        >
          ${(ids) => html`
            <input
              ...${ids}
              ref=${input}
              name="key"
              type="password"
              required
              autocomplete="off"
              spellcheck=${false}
              placeholder="rk_…"
            />
          `}
        <//>
      <//>
    </section>
  `;
}
