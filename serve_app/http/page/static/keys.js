/** The view Keys: the API keys of the tenant, and the changes that were made to them. */

import { getAll } from "./api.js";
import { ago, time } from "./format.js";
import { Edit, Revoke, Rotate } from "./key_dialogs.js";
import { CreateKey, Secret } from "./key_form.js";
import { html, useEffect, useLoad, useState } from "./lib.js";
import { limitTexts } from "./limits.js";
import { Trail } from "./trail.js";
import { Badge, Loaded, Panel, Table } from "./ui.js";

/** `session` is that of `useSession`. */
export function Keys({ session }) {
  const caller = session.key;
  const keys = useLoad(async (signal) => related(await getAll("v1/keys", signal), caller), []);
  const [task, setTask] = useState(null);
  const [all, setAll] = useState(false);
  useEffect(() => {
    const refresh = () => document.hidden || keys.reload();
    document.addEventListener("visibilitychange", refresh);
    return () => document.removeEventListener("visibilitychange", refresh);
  }, [keys.reload]);
  function done(next = null) {
    setTask(next);
    // The list is read with a new secret when the dialog is closed: the key may be the caller's.
    if (!next) keys.reload();
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
            choose=${setTask}
          />
          <p class="help">
            “Last used” is the time of the last request for scores, and a few seconds late.
          </p>
        `}
      <//>
    <//>
    <${Trail}
      path="v1/audit-log"
      turn=${keys.data}
      names=${new Map(keys.data?.map((key) => [key.id, key.label]))}
    />
    ${task && html`
      <${Task} key=${task.kind} ...${{ task, session, done }} close=${() => setTask(null)} />
    `}
  `;
}

/**
 * The keys with what a list needs to know of the other ones: `replacedBy`, the key that a rotation
 * made, `isCaller`, and `isLastManager`, for the last active key that can manage keys.
 */
function related(keys, caller) {
  const isManager = (key) => stateOf(key) === "active" && key.scopes.includes("manage");
  return keys.map((key) => ({
    ...key,
    replacedBy: keys.find((each) => each.replaces === key.id),
    isCaller: key.id === caller.id,
    isLastManager: isManager(key) && keys.filter(isManager).length === 1,
  }));
}

function stateOf(key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && new Date(key.expires_at) <= new Date() ? "expired" : "active";
}

function KeyTable({ rows, choose }) {
  return html`
    <${Table}
      caption="API keys"
      columns=${[
        {
          title: "Name",
          cell: (key) => html`
            ${key.label} ${key.isCaller && html`<${Badge}>signed in<//>`}
            <br /><code>rk_${key.id}_…</code>
            ${key.replaces && html`<p class="help">replaces <code>rk_${key.replaces}_…</code></p>`}
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
              ${tasksOf(key).map((kind) => html`
                <button
                  type="button"
                  class="small"
                  key=${kind}
                  aria-label=${`${NAMES[kind]} ${key.label} (rk_${key.id}_…)`}
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
      stacked
    />
  `;
}

/** Keys that open other tenants are changed by operators only. */
function isChangeable(key) {
  return stateOf(key) === "active" && !key.scopes.includes("admin");
}

/** A key is rotated only once. */
function tasksOf(key) {
  return key.replacedBy ? ["edit", "revoke"] : ["edit", "rotate", "revoke"];
}

const NAMES = { edit: "Edit", rotate: "Rotate", revoke: "Revoke" };

function State({ key_: key }) {
  const state = stateOf(key);
  if (state !== "active") return html`<${Badge}>${state}<//>`;
  if (key.replacedBy) return html`<${Badge} kind="warn">old key, ends ${time(key.expires_at)}<//>`;
  if (key.expires_at) return html`<${Badge} kind="warn">until ${time(key.expires_at)}<//>`;
  return html`<${Badge} kind="good">active<//>`;
}

function Task({ task: { kind, key, secret, note }, session, done, close }) {
  if (kind === "create") return html`<${CreateKey} path="v1/keys" done=${done} close=${close} />`;
  if (kind === "secret") {
    // The tab continues with the key that replaces the caller's.
    const end = () => (key.isCaller ? session.enter(secret).catch(() => done()) : done());
    return html`<${Secret} ...${{ secret, note }} close=${end} />`;
  }
  const View = { edit: Edit, rotate: Rotate, revoke: Revoke }[kind];
  return html`<${View} key_=${key} ...${{ session, done, close }} />`;
}
