/** The view Usage: what the tenant used and paid, its credit and its limits. */

import { download, get, getAll } from "./api.js";
import { DayChart } from "./charts.js";
import { count, day, dayBefore, dollars, roughDollars, short, time } from "./format.js";
import { html, useKept, useLoad } from "./lib.js";
import { LimitMeters } from "./limits.js";
import { Problem } from "./problem.js";
import { Choice, Field, Form, Loaded, Meter, Panel, Table } from "./ui.js";

const PERIODS = [[7, "7 days"], [30, "30 days"], [90, "90 days"]];

/** The counts of a row in a usage report: name, title, and how to show a value. */
const COUNTS = [
  ["documents", "Documents", short],
  ["requests", "Requests", short],
  ["tokens", "Tokens", short],
  ["charged_micro_dollars", "Cost", roughDollars],
  ["errors", "Failed", short],
];

/** `caller` is the answer of `GET /v1/key`. */
export function Usage({ caller }) {
  const manages = caller.scopes.includes("manage");
  const [days, setDays] = useKept("usage.days", 30);
  const since = dayBefore(days - 1);
  const report = useLoad((signal) => read(since, days, manages, signal), [since]);
  const credits = useLoad(
    async (signal) => (manages ? get("v1/credits?limit=1000", signal) : null),
    [],
  );
  const key = useLoad((signal) => get("v1/key", signal), []);
  const parts = [report, credits, key].filter((part) => manages || part !== credits);
  if (parts.every((part) => part.error)) {
    const retry = () => parts.forEach((part) => part.reload());
    return html`<${Problem} error=${report.error} retry=${retry} />`;
  }
  return html`
    <${Report} ...${{ report, since, days, setDays }} />
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

async function read(since, days, manages, signal) {
  const by = (group) => getAll(`v1/usage?group_by=${group}&since=${since}`, signal);
  const [byDay, byModel, byKey, keys] = await Promise.all([
    ...[by("day"), by("model"), by("key")],
    manages ? getAll("v1/keys", signal) : [],
  ]);
  const names = new Map(keys.map((key) => [key.id, key.label]));
  return { points: everyDay(byDay, days), byModel, byKey, names };
}

function Report({ report, since, days, setDays }) {
  const [shown, setShown] = useKept("usage.shown", "documents");
  const [, title, show] = COUNTS.find(([name]) => name === shown);

  return html`
    <${Panel}
      title="Activity"
      note="Requests by the UTC day on which they ended."
      actions=${html`
        <${Choice} label="Period" options=${PERIODS} value=${days} onChange=${setDays} />
        <${SaveCsv} since=${since} />
      `}
    >
      <${Loaded} from=${report}>
        ${({ points, byModel, byKey, names }) => html`
          <div class="tiles" role="group" aria-label="Totals; choose one for the chart">
            ${COUNTS.map(([name, label, format]) => html`
              <button
                type="button"
                key=${name}
                class="tile"
                aria-pressed=${name === shown}
                onClick=${() => setShown(name)}
              >
                <span>${label}</span>
                <strong>${format(points.reduce((sum, point) => sum + point[name], 0))}</strong>
              </button>
            `)}
          </div>
          <p class="help">
            Failed requests had no answer and were not charged. Refused ones (4xx), such as those
            above a limit or without credit, are not counted.
          </p>
          <${DayChart}
            label=${`${title} per day`}
            points=${points.map((point) => ({ day: point.day, value: point[shown] }))}
            show=${show}
          />
          <details>
            <summary>The same as a table</summary>
            <${Breakdown} group="day" name="Day" rows=${points.toReversed()} show=${day} />
          </details>
          <h3>By model</h3>
          <${Breakdown} group="model" name="Model" rows=${byModel} />
          <h3>By key</h3>
          <${Breakdown}
            group="key"
            name="Key"
            rows=${byKey}
            show=${(id) => html`${names.get(id)} <code class="muted">rk_${id}_…</code>`}
          />
        `}
      <//>
    <//>
  `;
}

/** A row for each day, also for those without a request. */
export function everyDay(rows, days) {
  const known = new Map(rows.map((row) => [row.day, row]));
  const zero = Object.fromEntries(COUNTS.map(([name]) => [name, 0]));
  return Array.from({ length: days }, (_, place) => {
    const date = dayBefore(days - 1 - place);
    return known.get(date) ?? { day: date, ...zero };
  });
}

function Breakdown({ group, name, rows, show = (value) => value }) {
  return html`
    <${Table}
      caption=${`Usage by ${group}`}
      columns=${[
        { title: name, cell: (row) => show(row[group]) },
        ...COUNTS.map(([field, title]) => ({
          title,
          numeric: true,
          cell: (row) => (field === "charged_micro_dollars" ? dollars : count)(row[field]),
        })),
      ]}
      rows=${rows.map((row) => ({ id: row[group], ...row }))}
      empty="No request in this period."
    />
  `;
}

function SaveCsv({ since }) {
  return html`
    <${Form}
      submit="Download CSV"
      kind="small"
      onSubmit=${() => download(
        `v1/usage?group_by=day,model,key&since=${since}&format=csv`,
        `usage-since-${since}.csv`,
      )}
    />
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
