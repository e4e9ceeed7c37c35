/** The view Models: what there is, and at which price. */

import { count, dollars } from "./format.js";
import { html } from "./lib.js";
import { Badge, Facts } from "./ui.js";

export function Models({ models }) {
  return html`
    <div class="grid">
      ${models.map((model) => html`
        <article class="panel" key=${model.id}>
          <div class="row top-aligned">
            <h2><a href=${`#/models/${model.id}`}>${model.id}</a></h2>
            <${Ready} ready=${model.ready} />
          </div>
          <p>${model.description}</p>
          <${Facts}
            facts=${[
              ["Price", price(model.pricing)],
              ["Longest pair", `${count(model.limits.pair_tokens_max)} tokens`],
              ["Runs on", runsOn(model)],
            ]}
          />
        </article>
      `)}
    </div>
  `;
}

export function Ready({ ready }) {
  return ready
    ? html`<${Badge} kind="good">ready<//>`
    : html`<${Badge} kind="warn" title="No replica has answered recently.">not ready<//>`;
}

export function runsOn({ device, precision }) {
  return device === null ? null : `${device}, ${precision}`;
}

function price(pricing) {
  const perDocument = pricing.micro_dollars_per_document;
  const perTokens = pricing.micro_dollars_per_million_tokens;
  const parts = [];
  if (perDocument) parts.push(`${dollars(1000 * perDocument)} per 1,000 documents`);
  if (perTokens) parts.push(`${dollars(perTokens)} per million tokens`);
  return parts.join(" + ") || "free";
}
