/** The operator's view Tenants: accounts, credit and limits. */

import { get, getAll, onceKey, send } from "./api.js";
import { count, dollars, time } from "./format.js";
import { CreateKey } from "./key_form.js";
import { html, useLoad, useState } from "./lib.js";
import { LimitInputs, amountOf, limitTexts, limitsOf } from "./limits.js";
import { Dialog, Field, Form, Loaded, Panel, Table } from "./ui.js";

const ACTIONS = [
  ["credit", "Credit", "Credit of"],
  ["limits", "Limits", "Limits of"],
  ["key", "New key", "New key for"],
];

export function Tenants() {
  const tenants = useLoad((signal) => getAll("admin/v1/tenants", signal), []);
  const [task, setTask] = useState(null);
  function done() {
    setTask(null);
    tenants.reload();
  }
  const View = task && { create: Create, credit: Credit, key: Key, limits: Limits }[task.kind];
  return html`
    <${Panel}
      title="Tenants"
      note="The parties that are billed."
      actions=${html`
        <button type="button" class="primary" onClick=${() => setTask({ kind: "create" })}>
          Add a tenant
        </button>
      `}
    >
      <${Loaded} from=${tenants}>
        ${(rows) => html`
          <${Table}
            caption="Tenants"
            columns=${[
              { title: "Name", cell: (tenant) => tenant.name },
              {
                title: "Credit",
                numeric: true,
                cell: (tenant) => dollars(tenant.available_micro_dollars),
              },
              { title: "Weight", numeric: true, cell: (tenant) => count(tenant.weight) },
              { title: "Limits", cell: ({ limits }) => limitTexts(limits) },
              { title: "Since", cell: (tenant) => time(tenant.created_at) },
              {
                title: "Actions",
                cell: (tenant) => html`
                  <span class="actions">
                    ${ACTIONS.map(([kind, text, label]) => html`
                      <button
                        type="button"
                        class="small"
                        key=${kind}
                        aria-label=${`${label} ${tenant.name}`}
                        onClick=${() => setTask({ kind, tenant })}
                      >
                        ${text}
                      </button>
                    `)}
                  </span>
                `,
              },
            ]}
            rows=${rows}
            empty="No tenant."
            stacked
          />
        `}
      <//>
    <//>
    ${task && html`<${View} tenant=${task.tenant} done=${done} close=${() => setTask(null)} />`}
  `;
}

function Create({ done, close }) {
  async function create(fields) {
    const credit = fields.get("credit");
    await send("POST", "admin/v1/tenants", {
      body: {
        name: fields.get("name"),
        ...(credit ? { credit_micro_dollars: amountOf(credit, "Credit") } : {}),
      },
    });
    done();
  }
  return html`
    <${Dialog} title="Add a tenant" onClose=${close}>
      <${Form} submit="Add" onSubmit=${create} onCancel=${close}>
        <${Field} label="Name">
          ${(ids) => html`<input ...${ids} name="name" required maxlength="128" autocomplete="off" />`}
        <//>
        <${Field} label="Credit in dollars" help="Empty: the free credit of this service.">
          ${(ids) => html`<input ...${ids} name="credit" inputmode="decimal" />`}
        <//>
      <//>
    <//>
  `;
}

function Credit({ tenant, done, close }) {
  const [key] = useState(onceKey);
  const grants = useLoad((signal) => (
    get(`admin/v1/credit?limit=1000&tenant=${encodeURIComponent(tenant.id)}`, signal)
  ), []);
  async function add(fields) {
    await send("POST", "admin/v1/credit", {
      // A repeat after a lost answer adds nothing.
      headers: { "idempotency-key": key },
      body: {
        tenant: tenant.id,
        amount_micro_dollars: amountOf(fields.get("amount"), "Amount"),
        reason: fields.get("reason"),
      },
    });
    done();
  }
  return html`
    <${Dialog} title=${`Credit of ${tenant.name}`} onClose=${close}>
      <p class="amount">${dollars(tenant.available_micro_dollars)}</p>
      <${Form} submit="Add credit" onSubmit=${add} onCancel=${close}>
        <${Field} label="Dollars to add">
          ${(ids) => html`<input ...${ids} name="amount" required inputmode="decimal" />`}
        <//>
        <${Field} label="Reason" help="The tenant sees it, such as the number of an invoice.">
          ${(ids) => html`<input ...${ids} name="reason" required maxlength="512" />`}
        <//>
      <//>
      <h3>So far</h3>
      <${Loaded} from=${grants}>
        ${({ data }) => html`
          <${Table}
            caption="Grants, refunds and corrections"
            columns=${[
              { title: "Time", cell: (grant) => time(grant.created_at) },
              { title: "Reason", cell: (grant) => grant.reason },
              {
                title: "Amount",
                numeric: true,
                cell: (grant) => dollars(grant.amount_micro_dollars),
              },
            ]}
            rows=${data.toReversed()}
          />
        `}
      <//>
    <//>
  `;
}

function Key({ tenant, done, close }) {
  return html`
    <${CreateKey}
      path="admin/v1/keys"
      more=${{ tenant: tenant.id }}
      title=${`New key for ${tenant.name}`}
      done=${done}
      close=${close}
    />
  `;
}

function Limits({ tenant, done, close }) {
  async function change(fields) {
    await send("PATCH", `admin/v1/tenants/${tenant.id}`, {
      body: { limits: limitsOf(fields), weight: Number(fields.get("weight")) },
    });
    done();
  }
  return html`
    <${Dialog} title=${`Limits of ${tenant.name}`} onClose=${close}>
      <${Form} submit="Save" onSubmit=${change} onCancel=${close}>
        <${LimitInputs} limits=${tenant.limits} legend="All keys together; empty means no limit" />
        <${Field} label="Weight" help="Share of busy replicas relative to other tenants.">
          ${(ids) => html`
            <input
              ...${ids}
              type="number"
              name="weight"
              min="1"
              max="1000"
              required
              defaultValue=${tenant.weight}
            />
          `}
        <//>
      <//>
    <//>
  `;
}
