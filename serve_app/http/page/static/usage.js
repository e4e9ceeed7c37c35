/** The view Usage: what the tenant used and paid, its credit and its limits. */

import { download, get } from "./api.js";
import { dayBefore, dollars, time } from "./format.js";
import { html, useLoad } from "./lib.js";
import { LimitMeters } from "./limits.js";
import { Problem } from "./problem.js";
import { Field, Form, Loaded, Meter, Panel, Table } from "./ui.js";
import { Report, useReport } from "./usage_report.js";

/** `caller` is the answer of `GET /v1/key`. */
export function Usage({ caller }) {
  const manages = caller.scopes.includes("manage");
  const report = useReport(manages);
  const credits = useLoad(
    async (signal) => (manages ? get("v1/credits?limit=1000", signal) : null),
    [],
  );
  const key = useLoad((signal) => get("v1/key", signal), []);
  const parts = [report, credits, key].filter((part) => manages || part !== credits);
  if (parts.every((part) => part.error)) {
    const retry = () => parts.forEach((part) => part.reload());
    return html`
      <${Problem} error=${report.error} retry=${retry} repeats=${report.error.isAway} />
    `;
  }
  return html`
    <${Report} report=${report} />
    <div class="halves">
      ${manages
        ? html`<${Credit} credits=${credits} />`
        : html`
          <${Panel} title="Credit">
            <p class="muted">A key with the scope “manage” shows the credit.</p>
          <//>
        `}
      <${Limits} key_=${key} />
    </div>
    ${manages && html`<${Statements} />`}
  `;
}

function Credit({ credits }) {
  return html`
    <${Panel} title="Credit">
      <${Loaded} from=${credits}>
        ${(credit) => html`
          <p class="amount">${dollars(credit.available_micro_dollars)}</p>
          <p class="muted">
            available${credit.reserved_micro_dollars > 0 &&
              `, and ${dollars(credit.reserved_micro_dollars)} reserved for running requests`}
          </p>
          ${credit.monthly_budget_micro_dollars === null
            ? html`<p>${dollars(credit.month_spent_micro_dollars)} spent in ${credit.month}.</p>`
            : html`
              <${Meter}
                label="Budget of ${credit.month}"
                used=${credit.month_spent_micro_dollars}
                limit=${credit.monthly_budget_micro_dollars}
                show=${dollars}
              />
            `}
          <h3>Grants, refunds and corrections</h3>
          <${Table}
            caption="Grants, refunds and corrections"
            columns=${[
              { title: "Time", cell: (grant) => time(grant.created_at) },
              { title: "Kind", cell: (grant) => grant.kind },
              { title: "Reason", cell: (grant) => grant.reason },
              {
                title: "Amount",
                numeric: true,
                cell: (grant) => dollars(grant.amount_micro_dollars),
              },
            ]}
            rows=${credit.grants.data.toReversed()}
          />
        `}
      <//>
    <//>
  `;
}

function Limits({ key_: key }) {
  return html`
    <${Panel}
      title="Limits"
      note="A request must fit all of them."
      actions=${html`<button type="button" class="small" onClick=${key.reload}>Refresh</button>`}
    >
      <${Loaded} from=${key}>
        ${(facts) => html`
          <h3>All keys together</h3>
          <${LimitMeters} limits=${facts.tenant_limits} used=${facts.tenant_used} />
          <h3>This key</h3>
          <${LimitMeters} limits=${facts.limits} used=${facts.used} />
        `}
      <//>
    <//>
  `;
}

function Statements() {
  return html`
    <${Panel} title="Statements" note="Opening balance, charges and closing balance of a month (UTC).">
      <${Form}
        submit="Download"
        kind=""
        onSubmit=${(fields) => {
          const [month, kind] = [fields.get("month"), fields.get("kind")];
          return download(`v1/statements/${month}?format=${kind}`, `statement-${month}.${kind}`);
        }}
      >
        <div class="columns wide">
          <${Field} label="Month">
            ${(ids) => html`
              <input
                ...${ids}
                type="month"
                name="month"
                required
                defaultValue=${dayBefore(0).slice(0, 7)}
              />
            `}
          <//>
          <${Field} label="Format">
            ${(ids) => html`
              <select ...${ids} name="kind">
                <option value="html">HTML, to print</option>
                <option value="csv">CSV</option>
                <option value="json">JSON</option>
              </select>
            `}
          <//>
        </div>
      <//>
    <//>
  `;
}
