/** The answer in the playground: ranked documents, times, tokens and price. */

import { get } from "./api.js";
import { count, counted, dollars, milliseconds } from "./format.js";
import { html, useEffect, useLoad, useState } from "./lib.js";
import { Badge, Facts, Panel } from "./ui.js";

const ROWS_FIRST = 50;
const LONG_CHARACTERS = 280;

/** `stale` dims the answer; `manages` says whether the key reads the credit. */
export function Results({ answer, stale, manages }) {
  const [all, setAll] = useState(false);
  useEffect(() => setAll(false), [answer]);
  if (!answer) {
    return html`
      <div class="blank">
        <h2>The documents in order of relevance</h2>
        <p class="muted">Enter a query and documents, or take a sample, and rank them.</p>
      </div>
    `;
  }
  const { request, body } = answer;
  const { results } = body;
  const rows = all ? results : results.slice(0, ROWS_FIRST);
  const left = request.documents.length - results.length;
  return html`
    <div class=${stale ? "stale" : ""}>
      <${Figures} ...${{ answer, manages }} />
      <${Panel}
        title="Results"
        note=${`${counted(results.length, "result")} for “${request.query}”`}
      >
        <p class="hidden" role="status">${counted(results.length, "result")}.</p>
        <ol class="results">
          ${rows.map((result, place) => html`
            <${Result} key=${result.index} ...${{ result, place }}
              text=${request.documents[result.index]} />
          `)}
        </ol>
        ${rows.length < results.length && html`
          <button type="button" onClick=${() => setAll(true)}>
            Show all ${counted(results.length, "result")}
          </button>
        `}
        ${left > 0 && html`
          <p class="muted">${counted(left, "more document")} ranked, left out by top_n.</p>
        `}
        <p class="help">
          A score is between 0 and 1 and orders the documents of one query. It is not a probability;
          do not compare scores of different models.
        </p>
      <//>
    </div>
  `;
}

function Result({ result, place, text }) {
  const [open, setOpen] = useState(false);
  const isLong = text.length > LONG_CHARACTERS;
  const score = result.relevance_score;
  return html`
    <li>
      <span class="rank" aria-hidden="true">${place + 1}</span>
      <div>
        <div class="row top-aligned">
          <p class="text">${isLong && !open ? `${text.slice(0, LONG_CHARACTERS)} …` : text}</p>
          <span class="score"><span class="hidden">Score </span>${shownScore(score)}</span>
        </div>
        <div class="bar-row">
          <div class="track" aria-hidden="true">
            <div class="fill" style=${{ width: `${100 * score}%` }}></div>
          </div>
          <${Move} from=${result.index} to=${place} />
        </div>
        <div class="marks">
          ${result.truncated && html`
            <${Badge} kind="warn" title="Its end did not fit the model and was not read.">
              cut to fit the model
            <//>
          `}
          ${isLong && html`
            <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}>
              ${open ? "Show less" : "Show all of it"}
            </button>
          `}
        </div>
      </div>
    </li>
  `;
}

/** Four decimals, or the exponent of a score that would be shown as zero. */
function shownScore(score) {
  return score !== 0 && score < 0.00005 ? score.toExponential(1) : score.toFixed(4);
}

function Move({ from, to }) {
  const steps = from - to;
  if (!steps) return html`<${Badge}>stays at ${from + 1}<//>`;
  const kind = steps > 0 ? "good" : "";
  return html`
    <${Badge} kind=${kind}>
      <span aria-hidden="true">${steps > 0 ? "▲" : "▼"} </span>
      ${steps > 0 ? "up" : "down"} ${Math.abs(steps)} from ${from + 1}
    <//>
  `;
}

function Figures({ answer: { request, body, times }, manages }) {
  const credit = useLoad(
    async (signal) => (manages ? get("v1/credits?limit=1", signal) : null),
    [body.id],
  );
  const { queue = 0, run = 0, total } = times;
  const rest = Math.max(0, total - queue - run);
  const sum = queue + run + rest;
  const parts = [
    ["queue", "Waiting in the queue", queue],
    ["run", "Computing in the model", run],
    ["rest", "Network, tokenizing and charging", rest],
  ];
  const { meta, usage } = body;
  return html`
    <${Panel} title="Time and cost">
      <div class="split" aria-hidden="true">
        ${parts.map(([name, , ms]) => html`
          <div class=${name} style=${{ width: `${(100 * ms) / sum}%` }}></div>
        `)}
      </div>
      <ul class="legend">
        ${parts.map(([name, label, ms]) => html`
          <li><span class="dot ${name}" aria-hidden="true"></span>${label}: ${milliseconds(ms)}</li>
        `)}
      </ul>
      <${Facts}
        facts=${[
          ["Total time", milliseconds(total)],
          ["Charged", dollars(meta.charge_micro_dollars)],
          ["Credit left", credit.data ? dollars(credit.data.available_micro_dollars) : null],
          ["Tokens", count(usage.total_tokens)],
          ["Documents", count(usage.documents)],
          ["Model", body.model],
          ["Service tier", request.service_tier ?? "default"],
          ["top_n", request.top_n ?? "all"],
        ]}
      />
      <p class="muted request">Request <code>${body.id}</code></p>
      ${meta.warnings.map((warning) => html`<p class="notice" key=${warning}>${warning}</p>`)}
    <//>
  `;
}
