/** The limits of a key or a tenant: as inputs, as a text, and how much of them is used. */

import { ApiError } from "./api.js";
import { count, dollars, microDollars } from "./format.js";
import { html } from "./lib.js";
import { Field, Meter } from "./ui.js";

const BUDGET = "monthly_budget_micro_dollars";

/** Name, title, text of a value, and the name of the used amount in `GET /v1/key`. */
const LIMITS = [
  ["requests_per_minute_max", "Requests per minute", "requests/min", "requests_per_minute"],
  ["documents_per_minute_max", "Documents per minute", "documents/min", "documents_per_minute"],
  ["concurrent_requests_max", "Concurrent requests", "at once", "concurrent_requests"],
];

/** Inputs for a `Form`. `limits` are the present ones. */
export function LimitInputs({ limits = {}, legend }) {
  const budget = limits[BUDGET] ?? null;
  return html`
    <fieldset class="columns">
      <legend>${legend}</legend>
      ${LIMITS.map(([name, title]) => html`
        <${Field} label=${title} key=${name}>
          ${(ids) => html`
            <input
              ...${ids}
              type="number"
              min="0"
              step="1"
              name=${name}
              defaultValue=${limits[name]}
            />
          `}
        <//>
      `)}
      <${Field} label="Dollars per month">
        ${(ids) => html`
          <input
            ...${ids}
            name=${BUDGET}
            inputmode="decimal"
            defaultValue=${budget === null ? "" : budget / 1_000_000}
          />
        `}
      <//>
    </fieldset>
  `;
}

/** The limits in a submitted form with `LimitInputs`; null for empty ones. */
export function limitsOf(fields) {
  const budget = fields.get(BUDGET);
  return {
    ...Object.fromEntries(LIMITS.map(([name]) => {
      const text = fields.get(name);
      return [name, text === "" ? null : Number(text)];
    })),
    [BUDGET]: budget === "" ? null : amountOf(budget, "Dollars per month"),
  };
}

/** Dollars that a person typed, in micro-dollars. Throws an `ApiError` that names the input. */
export function amountOf(text, label) {
  const amount = microDollars(text);
  if (Number.isNaN(amount)) {
    throw new ApiError(`${label}: enter an amount such as 2.50.`, { code: "invalid_request" });
  }
  return amount;
}

export function limitTexts(limits) {
  const texts = LIMITS.map(([name, , unit]) => limits[name] !== null && `${count(limits[name])} ${unit}`);
  if (limits[BUDGET] !== null) texts.push(`${dollars(limits[BUDGET])}/month`);
  return texts.filter(Boolean).join(" · ") || "none";
}

/** How much of the `limits` is used, as in `GET /v1/key`. */
export function LimitMeters({ limits, used }) {
  const set = LIMITS.filter(([name]) => limits[name] !== null);
  if (!set.length && limits[BUDGET] === null) return html`<p class="muted">No limits.</p>`;
  return html`
    ${set.map(([name, title, , usedName]) => html`
      <${Meter} key=${name} label=${title} used=${used[usedName] ?? 0} limit=${limits[name]} />
    `)}
    ${limits[BUDGET] !== null && html`
      <${Meter}
        label="Budget of this month"
        used=${used.month_spent_micro_dollars ?? 0}
        limit=${limits[BUDGET]}
        show=${dollars}
      />
    `}
  `;
}
