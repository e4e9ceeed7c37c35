/** The inputs of the playground. */

import { get } from "./api.js";
import { inColumn, readFile } from "./documents.js";
import { counted, dollars, languageName } from "./format.js";
import { html, useLoad, useRef, useState } from "./lib.js";
import { SAMPLES } from "./samples.js";
import { Field } from "./ui.js";

const TIERS = {
  default: ["Default", ""],
  priority: ["Priority", "Before other requests"],
  flex: ["Flex", "After other requests"],
};

export function Input({ draft, change, models, model, documents, run, running }) {
  const [fault, setFault] = useState("");
  const [missing, setMissing] = useState(null);
  const picker = useRef();
  const query = useRef();
  const texts = useRef();
  const fill = (fields) => {
    setMissing(null);
    change(fields);
  };
  const facts = useLoad((signal) => get(`v1/models/${model.id}`, signal), [model.id]);
  const languages = facts.loading ? "" : facts.data?.card.languages.map(languageName).join(", ");
  const most = model.limits.documents_per_request_max;

  async function open(file) {
    if (!file) return;
    try {
      fill({ file: inColumn(await readFile(file)) });
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
    if (running || documents.length > most) return;
    const [lack, input] = !draft.query.trim() ? ["query", query]
      : documents.length ? [null] : ["documents", texts];
    setMissing(lack);
    if (lack) input.current?.focus();
    else run();
  }
  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  }
  const sample = (place) => {
    const { query: sampled, lines } = SAMPLES[place];
    setFault("");
    fill({ query: sampled, text: lines.join("\n"), file: null });
  };

  return html`
    <form class="panel" onSubmit=${submit} onKeyDown=${keys}>
      <${Field} label="Query" fault=${missing === "query" && "Enter a query."}>
        ${(ids) => html`
          <input
            ...${ids}
            ref=${query}
            type="text"
            value=${draft.query}
            placeholder="What are you looking for?"
            onInput=${(event) => fill({ query: event.target.value })}
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
              ref=${texts}
              aria-invalid=${missing === "documents"}
              rows="10"
              value=${draft.text}
              placeholder="One document per line. Or drop a .txt, .csv or .jsonl file here."
              onInput=${(event) => fill({ text: event.target.value })}
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
        ${missing === "documents" && html`
          <p class="fault" role="alert">Enter at least one document.</p>
        `}
        ${fault && html`<p class="fault" role="alert">${fault}</p>`}
        ${documents.length > most && html`
          <p class="fault" role="alert">
            A request may have at most ${counted(most, "document")}.
          </p>
        `}
      </div>
      <div class="columns">
        <${Field} label="Model" help=${languages && `Languages: ${languages}`}>
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
        <${Field} label="Service tier" help=${tierHelp(model, draft.tier)}>
          ${(ids) => html`
            <select ...${ids} onChange=${(event) => change({ tier: event.target.value })}>
              ${Object.entries(TIERS).map(([value, [text]]) => html`
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

/** The prices of a document and of a million tokens, in micro-dollars. */
function pricesOf({ pricing }, tier) {
  const prefix = tier === "default" ? "" : `${tier}_`;
  return ["document", "million_tokens"].map((per) => pricing[`${prefix}micro_dollars_per_${per}`]);
}

/** When requests of a tier are served, and how many times the default price they cost. */
function tierHelp(model, tier) {
  if (tier === "default") return "";
  const [, when] = TIERS[tier];
  const [prices, base] = [pricesOf(model, tier), pricesOf(model, "default")];
  const place = base.findIndex((price) => price > 0);
  return place < 0 ? when : `${when}, at ${Number((prices[place] / base[place]).toFixed(2))} times the price`;
}

/** The price of the documents, before the request is sent. */
function estimate(model, tier, documents) {
  const [perDocument, perTokens] = pricesOf(model, tier);
  const parts = [];
  if (perDocument) parts.push(`${dollars(1000 * perDocument)} per 1,000 documents`);
  if (perTokens) parts.push(`${dollars(perTokens)} per million tokens`);
  if (!parts.length) return "This model is free.";
  const sum = perDocument && documents
    ? ` (${dollars(perDocument * documents)} for ${counted(documents, "document")})`
    : "";
  return `Price: ${parts.join(", plus ")}${sum}`;
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
        <${Field} label=${`${file.unit} with the documents`} help=${leftOut(file)}>
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
        ${file.documents.slice(0, 4).map((each, place) => html`<li key=${place}>${each}</li>`)}
      </ol>
      ${file.documents.length > 4 && html`<p class="muted">and more</p>`}
    </div>
  `;
}

/** How many rows of a file have no document in the chosen column. */
function leftOut({ rows, documents, unit }) {
  const left = rows.length - documents.length;
  return left > 0 ? `${counted(left, "row")} without this ${unit.toLowerCase()} left out` : "";
}
