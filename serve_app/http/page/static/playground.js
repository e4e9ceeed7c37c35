/** The view Playground: rank documents, and see the order, the times and the price. */

import { onceKey, send } from "./api.js";
import { Code } from "./code.js";
import { lines } from "./documents.js";
import { html, useEffect, useKept, useMemo, useRef, useState } from "./lib.js";
import { Input } from "./playground_input.js";
import { Problem } from "./problem.js";
import { Results } from "./results.js";
import { EXAMPLE } from "./samples.js";

const START = { query: "", text: "", file: null, topN: "", tier: "default", model: null };

/** `chosen` is the id of a model in the address; `manages` says whether the key reads the credit. */
export function Playground({ models, chosen, manages }) {
  const [draft, setDraft] = useKept("playground.draft", START);
  const [answer, setAnswer] = useKept("playground.answer", null);
  const [state, setState] = useState({});
  const model = models.find((each) => each.id === draft.model) ?? models[0];
  const documents = useMemo(
    () => draft.file?.documents ?? lines(draft.text),
    [draft.file, draft.text],
  );
  const change = (fields) => setDraft({ ...draft, ...fields });
  useEffect(() => {
    if (!chosen) return;
    const isBlank = !draft.query && !draft.text && !draft.file;
    change({ model: chosen, ...(isBlank ? EXAMPLE : {}) });
  }, [chosen]);
  const request = requestOf(draft, model, documents);
  const hasChanged = answer && !isSame(request, answer.request);
  const output = useRef();

  async function run(sent = { request, key: onceKey() }) {
    const control = new AbortController();
    setState({ control });
    try {
      setAnswer(await rerank(sent, control.signal));
      setState({});
    } catch (error) {
      setState(error.name === "AbortError" ? {} : { error, sent });
    }
    requestAnimationFrame(() => output.current && show(output.current));
  }

  return html`
    <div class="playground">
      <${Input}
        ...${{ draft, change, models, model, documents, run }}
        running=${state.control}
      />
      <div class="output" ref=${output}>
        ${state.error && html`<${Problem} error=${state.error} retry=${() => run(state.sent)} />`}
        ${state.control && html`<p class="muted" role="status">Ranking …</p>`}
        ${hasChanged && !state.control && !state.error && html`
          <p class="notice" role="status">The inputs have changed; rank again.</p>
        `}
        ${!state.error && html`
          <${Results} ...${{ answer, manages }} stale=${Boolean(state.control || hasChanged)} />
        `}
      </div>
      <${Code} request=${request} note="The same request as a program." />
    </div>
  `;
}

/** Scroll to an element unless its beginning is visible. */
function show(element) {
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) element.scrollIntoView();
}

function requestOf({ query, topN, tier }, model, documents) {
  return {
    model: model.id,
    query,
    documents,
    ...(topN ? { top_n: Number(topN) } : {}),
    ...(tier === "default" ? {} : { service_tier: tier }),
  };
}

/** Whether two requests are equal. */
function isSame({ documents, ...fields }, { documents: others, ...rest }) {
  return JSON.stringify(fields) === JSON.stringify(rest)
    && documents.length === others.length
    && documents.every((text, place) => text === others[place]);
}

/** Send `request` under an idempotency key; return what `Results` shows. */
async function rerank({ request, key }, signal) {
  const started = performance.now();
  const headers = { "idempotency-key": key };
  const answer = await send("POST", "v1/rerank", { body: request, headers, signal });
  const body = await answer.json();
  const times = { total: performance.now() - started };
  for (const part of (answer.headers.get("server-timing") ?? "").split(",")) {
    const [, name, ms] = part.match(/(\w+);dur=([\d.]+)/) ?? [];
    if (name) times[name] = Number(ms);
  }
  return { request, body, times };
}
