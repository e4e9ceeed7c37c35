/** The view Keys: the API keys of the tenant, and the changes that were made to them. */

import { getAll, send } from "./api.js";
import { ago, time } from "./format.js";
import { CreateKey, KeyForm, Secret } from "./key_form.js";
import { html, useLoad, useState } from "./lib.js";
import { limitTexts, limitsOf } from "./limits.js";
import { Trail } from "./trail.js";
import { Badge, Dialog, Field, Form, Loaded, Panel, Table } from "./ui.js";

export function Keys({ caller }) {
  const keys = useLoad((signal) => getAll("v1/keys", signal), []);
  const [task, setTask] = useState(null);
  const [all, setAll] = useState(false);
  function done(next = null) {
    setTask(next);
    keys.reload();
  }
  return html`
    <${Panel}
      title="API keys"
      note=${`Keys of ${caller.tenant_name}. Each one can have limits of its own.`}
      actions=${html`
        <label class="check">
          <input type="checkbox" checked=${all} onChange=${(event) => setAll(event.target.checked)} />
          Also revoked and expired ones
        </label>
        <button type="button" class="primary" onClick=${() => setTask({ kind: "create" })}>
          Create a key
        </button>
      `}
    >
      <${Loaded} from=${keys}>
        ${(rows) => html`
          <${KeyTable}
            rows=${rows.filter((key) => all || stateOf(key) === "active").toReversed()}
            caller=${caller}
            choose=${setTask}
          />
        `}
      <//>
    <//>
    <${Trail} path="v1/audit-log" turn=${keys.data} />
    ${task && html`<${Task} key=${task.kind} task=${task} done=${done} close=${() => setTask(null)} />`}
  `;
}

function stateOf(key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && new Date(key.expires_at) <= new Date() ? "expired" : "active";
}

function KeyTable({ rows, caller, choose }) {
  return html`
    <${Table}
      caption="API keys"
      columns=${[
        {
          title: "Name",
          cell: (key) => html`
            ${key.label} ${key.id === caller.id && html`<${Badge}>this tab<//>`}
            <br /><code>rk_${key.id}_…</code>
          `,
        },
        { title: "Scopes", cell: (key) => key.scopes.join(", ") },
        { title: "Limits", cell: ({ limits }) => limitTexts(limits) },
        { title: "Models", cell: ({ models }) => models?.join(", ") ?? "all" },
        {
          title: "Last used",
          cell: (key) => (key.last_used_at
            ? html`<span title=${time(key.last_used_at)}>${ago(key.last_used_at)}</span>`
            : "never"),
        },
        { title: "State", cell: (key) => html`<${State} key_=${key} />` },
        {
          title: "Actions",
          cell: (key) => isChangeable(key) && html`
            <span class="actions">
              ${["edit", "rotate", "revoke"].map((kind) => html`
                <button
                  type="button"
                  class="small"
                  key=${kind}
                  aria-label=${`${NAMES[kind]} ${key.label}`}
                  onClick=${() => choose({ kind, key })}
                >
                  ${NAMES[kind]}
                </button>
              `)}
            </span>
          `,
        },
      ]}
      rows=${rows}
      empty="No key."
    />
  `;
}

/** Keys that open other tenants are changed by operators only. */
function isChangeable(key) {
  return stateOf(key) === "active" && !key.scopes.includes("admin");
}

const NAMES = { edit: "Edit", rotate: "Rotate", revoke: "Revoke" };

function State({ key_: key }) {
  const state = stateOf(key);
  if (state !== "active") return html`<${Badge}>${state}<//>`;
  if (key.expires_at) return html`<${Badge} kind="warn">until ${time(key.expires_at)}<//>`;
  return html`<${Badge} kind="good">active<//>`;
}

function Task({ task: { kind, key, secret, note }, done, close }) {
  if (kind === "create") return html`<${CreateKey} path="v1/keys" done=${done} close=${close} />`;
  if (kind === "secret") return html`<${Secret} ...${{ secret, note, close }} />`;
  const View = { edit: Edit, rotate: Rotate, revoke: Revoke }[kind];
  return html`<${View} key_=${key} done=${done} close=${close} />`;
}

function Edit({ key_: key, done, close }) {
  async function edit(fields) {
    const body = { label: fields.get("label"), limits: limitsOf(fields) };
    await changed("PATCH", `v1/keys/${key.id}`, body);
    done();
  }
  return html`
    <${Dialog} title=${`Edit ${key.label}`} onClose=${close}>
      <${Form} submit="Save" onSubmit=${edit} onCancel=${close}>
        <${KeyForm} label=${key.label} limits=${key.limits} />
      <//>
    <//>
  `;
}

function Rotate({ key_: key, done, close }) {
  async function rotate(fields) {
    const overlap = Number(fields.get("overlap"));
    const made = await changed("POST", `v1/keys/${key.id}/rotate`, { overlap_s: overlap });
    const note = overlap ? "The old key works until the overlap ends." : "The old key has ended.";
    done({ kind: "secret", secret: made.secret, note });
  }
  return html`
    <${Dialog} title=${`Rotate ${key.label}`} onClose=${close}>
      <p>A new key with the same limits replaces this one.</p>
      <${Form} submit="Rotate" onSubmit=${rotate} onCancel=${close}>
        <${Field} label="The old key works for" help="Change your programs in this time.">
          ${(ids) => html`
            <select ...${ids} name="overlap">
              <option value="86400">24 more hours</option>
              <option value="604800">7 more days</option>
              <option value="3600">1 more hour</option>
              <option value="0">no longer</option>
            </select>
          `}
        <//>
      <//>
    <//>
  `;
}

function Revoke({ key_: key, done, close }) {
  async function revoke() {
    await changed("POST", `v1/keys/${key.id}/revoke`, {});
    done();
  }
  return html`
    <${Dialog} title=${`Revoke ${key.label}?`} onClose=${close}>
      <p>
        Programs with this key get the status 401 within 5 seconds. This cannot be undone.
      </p>
      <${Form} submit="Revoke" kind="danger" onSubmit=${revoke} onCancel=${close} />
    <//>
  `;
}

async function changed(method, path, body) {
  return (await send(method, path, { body })).json();
}
