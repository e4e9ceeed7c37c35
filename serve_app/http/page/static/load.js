/** The operator's view Load: replicas, queues, speed and recent errors. */

import { get, getAll } from "./api.js";
import { DayChart } from "./charts.js";
import { count, dayBefore, roughDollars, short } from "./format.js";
import { html, useEffect, useLoad } from "./lib.js";
import { everyDay } from "./usage_report.js";
import { Badge, Loaded, Panel, Table } from "./ui.js";
import { Ready } from "./models.js";

const REFRESH_MS = 5_000;

export function Load() {
  const status = useLoad((signal) => get("admin/v1/status", signal), []);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || status.reload(), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return html`
    <${Loaded} from=${status}>
      ${(now) => html`
        <${Panel}
          title="Models"
          note="Replicas are those of the cluster; the queues are those of the gateway that answered."
          actions=${html`
            <${Badge} kind=${now.ledger ? "good" : "bad"}>
              ${now.ledger ? "ledger answers" : "ledger does not answer"}
            <//>
            <${Badge}>gateways: ${states(now.gateways)}<//>
          `}
        >
          <${Table}
            caption="Models"
            columns=${[
              { title: "Model", cell: (model) => model.id },
              { title: "State", cell: (model) => html`<${Ready} ready=${model.ready} />` },
              { title: "Replicas", cell: (model) => states(model.replicas) },
              {
                title: "Runs on",
                cell: ({ device, precision }) => (device ? `${device}, ${precision}` : "unknown"),
              },
              {
                title: "Queued tokens",
                numeric: true,
                cell: (model) => count(model.backlog_tokens),
              },
              {
                title: "Tokens on replicas",
                numeric: true,
                cell: (model) => count(model.inflight_tokens),
              },
              {
                title: "Tokens/s of a replica",
                numeric: true,
                cell: ({ replica_tokens_per_s: speed }) => (
                  speed === null ? "unknown" : count(Math.round(speed))
                ),
              },
            ]}
            rows=${now.models}
            stacked
          />
        <//>
        <${Panel}
          title="Answers of the last hour"
          note=${`By error code, of gateway ${now.gateway.slice(0, 8)} only. The metrics have all.`}
        >
          <${Table}
            caption="Answers of the last hour"
            columns=${[
              {
                title: "Code",
                cell: ({ code }) => html`<${Badge} kind=${code === "ok" ? "good" : "bad"}>${code}<//>`,
              },
              { title: "Requests", numeric: true, cell: ({ requests }) => count(requests) },
            ]}
            rows=${now.last_hour.map((each) => ({ id: each.code, ...each }))}
            empty="No request."
          />
        <//>
      `}
    <//>
    <${Business} />
  `;
}

function states(replicas) {
  if (replicas === null) return "unknown";
  const parts = Object.entries(replicas).map(([state, n]) => `${n} ${state.toLowerCase()}`);
  return parts.join(", ") || "none";
}

/** Requests and income of all tenants in the last 30 days. */
function Business() {
  const days = 30;
  const since = dayBefore(days - 1);
  const usage = useLoad(
    (signal) => getAll(`admin/v1/usage?group_by=day&since=${since}`, signal),
    [since],
  );
  return html`
    <${Panel} title="All tenants" note="The last 30 days (UTC).">
      <${Loaded} from=${usage}>
        ${(rows) => {
          const points = everyDay(rows, days);
          const of = (name) => points.map((point) => ({ day: point.day, value: point[name] }));
          return html`
            <div class="halves">
              <${DayChart} label="Documents per day" points=${of("documents")} show=${short} />
              <${DayChart}
                label="Charged per day"
                points=${of("charged_micro_dollars")}
                show=${roughDollars}
              />
            </div>
          `;
        }}
      <//>
    <//>
  `;
}
