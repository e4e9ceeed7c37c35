/** The dialogs that change, rotate and revoke an API key. */

import { send } from "./api.js";
import { ago, time } from "./format.js";
import { KeyForm } from "./key_form.js";
import { html } from "./lib.js";
import { limitsOf } from "./limits.js";
import { Dialog, Field, Form } from "./ui.js";

export function Edit({ key_: key, done, close }) {
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

export function Rotate({ key_: key, done, close }) {
  async function rotate(fields) {
    const overlap = Number(fields.get("overlap"));
    const made = await changed("POST", `v1/keys/${key.id}/rotate`, { overlap_s: overlap });
    const note = overlap
      ? `The old key works until ${time(endOf(key, made, overlap))}.`
      : "The old key has ended.";
    done({ kind: "secret", key, secret: made.secret, note });
  }
  return html`
    <${Dialog} title=${`Rotate ${key.label}`} onClose=${close}>
      <${About} key_=${key} />
      <p>
        A new key with the same scopes and limits replaces this one. While both work, each of them
        has these limits of its own.
      </p>
      ${key.isCaller && html`
        <p class="notice">You are signed in with this key. This tab continues with the new one.</p>
      `}
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

/** The time at which a key ends that was replaced by the key `made`. */
function endOf(key, made, overlapS) {
  const end = new Date(Date.parse(made.created_at) + 1_000 * overlapS).toISOString();
  return key.expires_at && Date.parse(key.expires_at) < Date.parse(end) ? key.expires_at : end;
}

export function Revoke({ key_: key, session, done, close }) {
  async function revoke() {
    await changed("POST", `v1/keys/${key.id}/revoke`, {});
    if (key.isCaller) session.leave();
    else done();
  }
  return html`
    <${Dialog} title=${`Revoke ${key.label}?`} onClose=${close}>
      <${About} key_=${key} />
      ${key.isCaller && html`
        <p class="notice">You are signed in with this key, so you will be signed out.</p>
      `}
      ${key.isLastManager && html`
        <p class="notice">
          This is the last active key that may manage keys. Afterwards, only the operator of this
          service can create a key for you.
        </p>
      `}
      <p>
        Programs with this key get the status 401 within 5 seconds. This cannot be undone.
      </p>
      <${Form} submit="Revoke" kind="danger" onSubmit=${revoke} onCancel=${close} />
    <//>
  `;
}

/** Which key it is: several ones can have the same name. */
function About({ key_: key }) {
  const { replaces, replacedBy } = key;
  return html`
    <p>
      <code>rk_${key.id}_…</code>, ${usedText(key)}.
      ${replaces && html` It replaces <code>rk_${replaces}_…</code>.`}
      ${replacedBy && html`
        ${" "}It is the old key, replaced by <code>rk_${replacedBy.id}_…</code>, which
        was ${usedText(replacedBy)}.
      `}
    </p>
  `;
}

function usedText(key) {
  return key.last_used_at ? `last used ${ago(key.last_used_at)}` : "never used";
}

async function changed(method, path, body) {
  return (await send(method, path, { body })).json();
}
