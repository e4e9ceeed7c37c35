/** The page of one model. */

import { get } from "./api.js";
import { Code } from "./code.js";
import { lines } from "./documents.js";
import { count, dollars, languageName } from "./format.js";
import { html, useLoad } from "./lib.js";
import { Ready, runsOn } from "./models.js";
import { EXAMPLE } from "./samples.js";
import { Title } from "./shell.js";
import { Badge, Facts, Loaded, Panel, Table } from "./ui.js";

const TIERS = [["Default", ""], ["Priority", "priority_"], ["Flex", "flex_"]];
const UNKNOWN = "Neither the model's files nor the operator say.";

export function Model({ id }) {
  const model = useLoad((signal) => get(`v1/models/${id}`, signal), [id]);
  return html`
    <p><a href="#/models">All models</a></p>
    <${Title} view=${`models/${id}`}>${id}<//>
    <${Loaded} from=${model}>${(facts) => html`<${Page} model=${facts} />`}<//>
  `;
}

function Page({ model }) {
  const { card } = model;
  const { query, text, topN } = EXAMPLE;
  return html`
    <div class="row wrap">
      <p>${card.summary ?? model.description}</p>
      <span class="actions">
        <${Ready} ready=${model.ready} />
        <a class="button primary" href=${`#/playground/${model.id}`}>Try it</a>
      </span>
    </div>
    <${Description} model=${model} />
    <div class="halves">
      <${Prices} pricing=${model.pricing} />
      <${Limits} limits=${model.limits} />
    </div>
    <${Quality} quality=${card.quality} />
    <div class="halves">
      <${Panel} title="Input format">
        <p>${card.input_format ?? "A query and a document, as plain text."}</p>
        <p class="help">
          A pair of more than ${count(model.limits.pair_tokens_max)} tokens is cut, or divided
          with <code>overflow: chunk</code>.
        </p>
      <//>
      <${Panel} title="Training data">
        ${card.training_data.length
          ? html`<ul class="list">${card.training_data.map((each) => html`<li key=${each}>${each}</li>`)}</ul>`
          : html`<p class="muted">${UNKNOWN}</p>`}
      <//>
    </div>
    <${Code}
      request=${{ model: model.id, query, documents: lines(text), top_n: Number(topN) }}
      note="An example request as a program."
    />
    ${card.faq.length > 0 && html`
      <${Panel} title="Questions">
        ${card.faq.map(({ question, answer }) => html`
          <details key=${question}><summary>${question}</summary><p>${answer}</p></details>
        `)}
      <//>
    `}
  `;
}

function Description({ model }) {
  const { card, speed } = model;
  return html`
    <${Panel} title="Facts">
      <${Facts}
        facts=${[
          ["Task", model.task],
          ["Architecture", card.architecture ?? (model.description || null)],
          ["Parameters", card.parameters && count(card.parameters)],
          ["Base model", card.base_model],
          ["Languages", card.languages.map(languageName).join(", ") || null],
          ["Licence", link(card.license_url, card.license)],
          ["Source", link(card.source_url, model.source)],
          ["Revision", model.revision],
          ["Other names", model.aliases.join(", ") || null],
          ["Runs on", runsOn(model)],
          ["Speed of a replica", speed.tokens_per_s
            ? `${count(Math.round(speed.tokens_per_s))} tokens/s, measured here`
            : null],
          ["Activation of its authors", nativeScores(model.native_scores)],
        ]}
      />
    <//>
  `;
}

function Prices({ pricing }) {
  const parts = [
    ["1,000 documents", "micro_dollars_per_document", 1_000],
    ["1,000,000 tokens", "micro_dollars_per_million_tokens", 1],
  ].filter(([, name]) => TIERS.some(([, tier]) => pricing[`${tier}${name}`] > 0));
  if (!parts.length) return html`<${Panel} title="Prices"><p>This model is free.</p><//>`;
  return html`
    <${Panel} title="Prices" note=${parts.length > 1 && "A request costs the sum of both."}>
      <${Table}
        caption="Prices"
        columns=${[
          { title: "Tier", cell: ([name]) => name },
          ...parts.map(([title, name, factor]) => ({
            title,
            numeric: true,
            cell: ([, tier]) => dollars(factor * pricing[`${tier}${name}`]),
          })),
        ]}
        rows=${TIERS}
      />
    <//>
  `;
}

function Limits({ limits }) {
  return html`
    <${Panel} title="Limits of a request">
      <${Facts}
        facts=${[
          ["Documents", count(limits.documents_per_request_max)],
          ["Tokens of query and document", count(limits.pair_tokens_max)],
          ["Characters of the query", count(limits.query_characters_max)],
          ["Bytes", count(limits.body_bytes_max)],
        ]}
      />
    <//>
  `;
}

function Quality({ quality }) {
  return html`
    <${Panel}
      title="Quality"
      note="“Published” figures are of the model's authors, “measured” ones are of this service."
    >
      <${Table}
        caption="Quality"
        columns=${[
          { title: "Data set", cell: (each) => each.dataset },
          { title: "Metric", cell: (each) => each.metric },
          { title: "Value", numeric: true, cell: (each) => each.value },
          {
            title: "Origin",
            cell: ({ origin }) => html`
              <${Badge} kind=${origin === "measured" ? "good" : ""}>${origin}<//>
            `,
          },
          { title: "Source", cell: (each) => each.source },
        ]}
        rows=${quality}
        empty=${UNKNOWN}
      />
    <//>
  `;
}

function link(url, text) {
  if (!url) return text;
  return html`<a href=${url} rel="noreferrer" target="_blank">${text ?? url}</a>`;
}

function nativeScores({ activation, min, max }) {
  if (activation === null) return null;
  const range = min === null ? "" : max === null ? `, from ${min}` : `, ${min} to ${max}`;
  return `${activation}${range}`;
}
