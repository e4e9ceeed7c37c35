/** What was used and paid: totals, a chart and tables, of all requests or of a selection. */

import { downloadCsv, getAll } from "./api.js";
import { DayChart } from "./charts.js";
import {
  count, day, dayAfter, dayBefore, dollars, milliseconds, roughDollars, short,
} from "./format.js";
import { html, useKept, useLoad } from "./lib.js";
import { Choice, Field, Form, Loaded, Panel, Table } from "./ui.js";

const PERIODS = [[7, "7 days"], [30, "30 days"], [90, "90 days"]];

/** A latency in whole milliseconds, which earlier versions of the service did not record. */
function latency(ms) {
  if (ms === null || ms === undefined) return "–";
  return ms < 10_000 ? `${count(ms)} ms` : milliseconds(ms);
}

/** The numbers of a row: name, title, how the tiles and the chart show it, and how the tables do. */
const NUMBERS = [
  ["documents", "Documents", short, count],
  ["requests", "Requests", short, count],
  ["tokens", "Tokens", short, count],
  ["charged_micro_dollars", "Cost", roughDollars, dollars],
  ["errors", "Failed", short, count],
  ["latency_ms_p50", "Latency (median)", latency, latency],
  ["latency_ms_p95", "Latency (95 %)", latency, latency],
];
const COUNTS = NUMBERS.slice(0, 5);
const TILES = NUMBERS.slice(0, 6);
const ALL = { day: "", model: "", key: "" };

/**
 * The usage of a period, with the selection in it: `useLoad`'s result and the states of the inputs.
 *
 * The selection is a day, a model and a key, each of which may be empty. Each table shows all of its
 * rows within the other two, so that it also shows what else can be chosen.
 */
export function useReport(manages) {
  const [days, setDays] = useKept("usage.days", 30);
  const [chosen, choose] = useKept("usage.chosen", ALL);
  const since = dayBefore(days - 1);
  const loaded = useLoad(async (signal) => {
    const rows = (group, ...free) => (
      getAll(reportPath(group, since, { ...chosen, ...without(free) }), signal)
    );
    const [total, byDay, byModel, byKey, keys] = await Promise.all([
      rows("none"),
      rows("day", "day"),
      rows("model", "model"),
      rows("key", "key"),
      manages ? getAll("v1/keys", signal) : [],
    ]);
    const names = new Map(keys.map((key) => [key.id, key.label]));
    return { total: total[0], points: everyDay(byDay, days), byModel, byKey, names };
  }, [since, ...Object.values(chosen)]);
  return {
    ...loaded,
    since,
    days,
    chosen,
    choose,
    setDays(next) {
      setDays(next);
      choose({ ...chosen, day: "" });
    },
  };
}

const without = (names) => Object.fromEntries(names.map((name) => [name, ""]));

function reportPath(group, since, { day: date, model, key }) {
  const query = new URLSearchParams({ group_by: group, since: date || since });
  if (date) query.set("until", dayAfter(date));
  if (model) query.set("model", model);
  if (key) query.set("key", key);
  return `v1/usage?${query}`;
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

/** `report` is the result of `useReport`. */
export function Report({ report }) {
  const { days, setDays, chosen, choose } = report;
  return html`
    <${Panel}
      title="Activity"
      note="Requests by the UTC day on which they ended."
      actions=${html`
        <${Choice} label="Period" options=${PERIODS} value=${days} onChange=${setDays} />
        <${SaveCsv} report=${report} />
      `}
    >
      <${Loaded} from=${report}>
        ${(data) => html`
          <${Selection} ...${{ data, chosen, choose }} />
          <${Totals} ...${{ data, chosen, choose }} />
          <${Breakdowns} ...${{ data, chosen }} />
        `}
      <//>
    <//>
  `;
}

/** The inputs for the selection. A choice without requests stays in its list. */
function Selection({ data, chosen, choose }) {
  const used = data.points.filter((point) => point.requests || point.day === chosen.day);
  const days = used.map((point) => [point.day, day(point.day)]).toReversed();
  const values = (rows, name) => [...new Set([...rows.map((row) => row[name]), chosen[name]])];
  const models = values(data.byModel, "model").filter(Boolean).map((id) => [id, id]);
  const keys = values(data.byKey, "key").filter(Boolean).map((id) => (
    [id, `${data.names.get(id) ?? ""} rk_${id}_…`]
  ));
  return html`
    <div class="selection" role="group" aria-label="Selection">
      ${[
        ["day", "Day", "All days", days],
        ["model", "Model", "All models", models],
        ["key", "Key", "All keys", keys],
      ].map(([name, label, all, options]) => html`
        <${Field} label=${label} key=${name}>
          ${(ids) => html`
            <select
              ...${ids}
              value=${chosen[name]}
              onChange=${({ target }) => choose({ ...chosen, [name]: target.value })}
            >
              <option value="">${all}</option>
              ${options.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}
            </select>
          `}
        <//>
      `)}
      ${Object.values(chosen).some(Boolean) && html`
        <button type="button" class="small" onClick=${() => choose(ALL)}>Show all</button>
      `}
    </div>
  `;
}

/** The sums and the median of the selection. The pressed one is in the chart. */
function Totals({ data: { total, points }, chosen, choose }) {
  const [shown, setShown] = useKept("usage.shown", "documents");
  const [, title, show] = TILES.find(([name]) => name === shown);
  const isLatency = shown === "latency_ms_p50";
  const value = (name) => total?.[name] ?? (name === "latency_ms_p50" ? null : 0);
  return html`
    <div class="tiles" role="group" aria-label="Totals; choose one for the chart">
      ${TILES.map(([name, label, format]) => html`
        <button
          type="button"
          key=${name}
          class="tile"
          aria-pressed=${name === shown}
          onClick=${() => setShown(name)}
        >
          <span>${label}</span>
          <strong>${format(value(name))}</strong>
        </button>
      `)}
    </div>
    <p class="help">
      ${isLatency
        ? `The time from the acceptance of an answered request to its charge: tokenizing, waiting and
          scoring, without the network. “–”: not recorded.`
        : `Failed requests had no answer and were not charged. Refused ones (4xx), such as those
          above a limit or without credit, are not counted.`}
    </p>
    <${DayChart}
      label=${isLatency ? "Latency per day" : `${title} per day`}
      points=${points.map((point) => ({
        day: point.day,
        value: point[shown] ?? null,
        behind: isLatency ? point.latency_ms_p95 ?? null : null,
      }))}
      show=${show}
      names=${isLatency ? ["median", "95 %"] : null}
      chosen=${chosen.day}
      onPick=${(date) => choose({ ...chosen, day: date === chosen.day ? "" : date })}
    />
  `;
}

function Breakdowns({ data: { points, byModel, byKey, names }, chosen }) {
  return html`
    <details>
      <summary>The same as a table</summary>
      <${Breakdown} group="day" name="Day" rows=${points.toReversed()} show=${day} chosen=${chosen} />
    </details>
    <h3>By model</h3>
    <${Breakdown} group="model" name="Model" rows=${byModel} chosen=${chosen} />
    <h3>By key</h3>
    <${Breakdown}
      group="key"
      name="Key"
      rows=${byKey}
      show=${(id) => html`${names.get(id)} <code class="muted">rk_${id}_…</code>`}
      chosen=${chosen}
    />
  `;
}

function Breakdown({ group, name, rows, chosen, show = (value) => value }) {
  return html`
    <${Table}
      caption=${`Usage by ${group}`}
      columns=${[
        { title: name, cell: (row) => show(row[group]) },
        ...NUMBERS.map(([field, title, , format]) => ({
          title,
          numeric: true,
          cell: (row) => format(row[field]),
        })),
      ]}
      rows=${rows.map((row) => ({ id: row[group], isChosen: row[group] === chosen[group], ...row }))}
      empty="No request in this selection."
    />
  `;
}

function SaveCsv({ report: { since, chosen } }) {
  const parts = [chosen.day || `since-${since}`, chosen.model, chosen.key].filter(Boolean);
  const name = parts.join("-").replaceAll(/[^\w.-]/g, "_");
  return html`
    <${Form}
      submit="Download CSV"
      kind="small"
      onSubmit=${() => (
        downloadCsv(reportPath("day,model,key", since, chosen), `usage-${name}.csv`)
      )}
    />
  `;
}
