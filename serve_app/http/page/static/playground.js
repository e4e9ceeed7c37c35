/** The view Playground: rank documents, and see the order, the times and the price. */

import { ApiError, onceKey, send } from "./api.js";
import { Code } from "./code.js";
import { inColumn, lines, readFile, textOf } from "./documents.js";
import { counted, dollars } from "./format.js";
import { html, useEffect, useKept, useMemo, useRef, useState } from "./lib.js";
import { Problem } from "./problem.js";
import { Results } from "./results.js";
import { SAMPLES } from "./samples.js";
import { Field } from "./ui.js";

const TIERS = { default: "Default", priority: "Priority: before others", flex: "Flex: after others" };
const START = { query: "", text: "", file: null, topN: "", tier: "default", model: null };

/** `chosen` is the id of a model in the address. */
export function Playground({ models, chosen }) {
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
    if (chosen) change({ model: chosen });
  }, [chosen]);
  const request = requestOf(draft, model, documents);
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
        ${!state.error && html`<${Results} answer=${answer} stale=${Boolean(state.control)} />`}
      </div>
      <${Code} request=${request} />
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

/** Send `request` under an idempotency key; return what `Results` shows. */
async function rerank({ request, key }, signal) {
  if (!request.query.trim() || !request.documents.length) {
    throw new ApiError("Enter a query and at least one document.", { code: "invalid_request" });
  }
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

function Input({ draft, change, models, model, documents, run, running }) {
  const [fault, setFault] = useState("");
  const picker = useRef();
  const most = model.limits.documents_per_request_max;

  async function open(file) {
    if (!file) return;
    try {
      change({ file: inColumn(await readFile(file)) });
      setFault("");
    } catch (error) {
      setFault(error.message);
    }
  }
  function drop(event) {
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  }
  function submit(event) {
    event.preventDefault();
    if (!running) run();
  }
  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  }
  const sample = (place) => {
    const { query, lines: texts } = SAMPLES[place];
    change({ query, text: texts.join("\n"), file: null });
  };

  return html`
    <form class="panel" onSubmit=${submit} onKeyDown=${keys}>
      <${Field} label="Query">
        ${(ids) => html`
          <input
            ...${ids}
            type="text"
            value=${draft.query}
            placeholder="What are you looking for?"
            onInput=${(event) => change({ query: event.target.value })}
          />
        `}
      <//>
      <div class="field" onDrop=${drop} onDragOver=${(event) => event.preventDefault()}>
        <div class="row">
          ${draft.file
            ? html`<span class="label">Documents</span>`
            : html`<label for="documents">Documents</label>`}
          <span class="muted">${counted(documents.length, "document")}</span>
        </div>
        ${draft.file
          ? html`<${File} file=${draft.file} change=${change} />`
          : html`
            <textarea
              id="documents"
              rows="10"
              value=${draft.text}
              placeholder="One document per line. Or drop a .txt, .csv or .jsonl file here."
              onInput=${(event) => change({ text: event.target.value })}
            ></textarea>
          `}
        <div class="row wrap">
          <span class="actions">
            <button type="button" class="small" onClick=${() => picker.current.click()}>
              Open a file
            </button>
            <input
              ref=${picker}
              type="file"
              hidden
              aria-label="File with documents"
              accept=".txt,.md,.csv,.tsv,.jsonl,.ndjson"
              onChange=${(event) => {
                open(event.target.files[0]);
                event.target.value = "";
              }}
            />
            ${SAMPLES.map(({ name }, place) => html`
              <button type="button" class="small" key=${name} onClick=${() => sample(place)}>
                Sample: ${name}
              </button>
            `)}
          </span>
        </div>
        ${fault && html`<p class="fault" role="alert">${fault}</p>`}
        ${documents.length > most && html`
          <p class="fault" role="alert">
            A request may have at most ${counted(most, "document")}.
          </p>
        `}
      </div>
      <div class="columns">
        <${Field} label="Model">
          ${(ids) => html`
            <select ...${ids} onChange=${(event) => change({ model: event.target.value })}>
              ${models.map((each) => html`
                <option key=${each.id} value=${each.id} selected=${each.id === model.id}>
                  ${each.id}
                </option>
              `)}
            </select>
          `}
        <//>
        <${Field} label="Results (top_n)">
          ${(ids) => html`
            <input
              ...${ids}
              type="number"
              min="1"
              value=${draft.topN}
              placeholder="All"
              onInput=${(event) => change({ topN: event.target.value })}
            />
          `}
        <//>
        <${Field} label="Service tier">
          ${(ids) => html`
            <select ...${ids} onChange=${(event) => change({ tier: event.target.value })}>
              ${Object.entries(TIERS).map(([value, text]) => html`
                <option key=${value} value=${value} selected=${value === draft.tier}>${text}</option>
              `)}
            </select>
          `}
        <//>
      </div>
      <div class="row wrap">
        <p class="muted">${estimate(model, draft.tier, documents.length)}</p>
        ${running
          ? html`<button type="button" onClick=${() => running.abort()}>Cancel</button>`
          : html`
            <button class="primary" disabled=${documents.length > most} title="Ctrl+Enter">
              Rank documents
            </button>
          `}
      </div>
    </form>
  `;
}

/** The price of the documents, before the request is sent. */
function estimate({ pricing }, tier, documents) {
  const prefix = tier === "default" ? "" : `${tier}_`;
  const perDocument = pricing[`${prefix}micro_dollars_per_document`];
  const perTokens = pricing[`${prefix}micro_dollars_per_million_tokens`];
  const parts = [];
  if (perDocument) parts.push(`${dollars(perDocument * documents)} for the documents`);
  if (perTokens) parts.push(`${dollars(perTokens)} per million tokens`);
  return parts.length ? `Price: ${parts.join(", plus ")}` : "This model is free.";
}

/** The documents of a file instead of the text area. */
function File({ file, change }) {
  return html`
    <div class="file">
      <div class="row wrap">
        <strong>${file.name}</strong>
        <button type="button" class="small" onClick=${() => change({ file: null })}>
          Remove the file
        </button>
      </div>
      ${file.columns && html`
        <${Field} label="Column with the documents">
          ${(ids) => html`
            <select
              ...${ids}
              onChange=${(event) => change({ file: inColumn(file, event.target.value) })}
            >
              ${file.columns.map((column) => html`
                <option key=${column} value=${column} selected=${column === file.column}>
                  ${column}
                </option>
              `)}
            </select>
          `}
        <//>
      `}
      <ol class="preview">
        ${file.documents.slice(0, 4).map((each, place) => html`<li key=${place}>${textOf(each)}</li>`)}
      </ol>
      ${file.documents.length > 4 && html`<p class="muted">and more</p>`}
    </div>
  `;
}
