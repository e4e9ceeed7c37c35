/** The inputs of a new or changed API key, and the dialogs for a new one. */

import { send } from "./api.js";
import { html, useState } from "./lib.js";
import { LimitInputs, limitsOf } from "./limits.js";
import { Copy, Dialog, Field, Form } from "./ui.js";

/** `label` and `limits` are those of an existing key. */
export function KeyForm({ isNew = false, label = "", limits }) {
  return html`
    <${Field} label="Name" help="For you, such as the program that uses it.">
      ${(ids) => html`
        <input
          ...${ids}
          name="label"
          required
          maxlength="128"
          defaultValue=${label}
          autocomplete="off"
        />
      `}
    <//>
    ${isNew && html`
      <fieldset>
        <legend>The key may</legend>
        <label class="check">
          <input type="checkbox" name="scopes" value="rerank" defaultChecked /> rank documents
        </label>
        <label class="check">
          <input type="checkbox" name="scopes" value="manage" /> manage keys and see the credit
        </label>
      </fieldset>
    `}
    <${LimitInputs} limits=${limits} legend="Limits of this key; empty means none of its own" />
    ${isNew && html`
      <${Field} label="Expires after (days)">
        ${(ids) => html`
          <input ...${ids} type="number" min="1" max="36500" name="days" placeholder="Never" />
        `}
      <//>
    `}
  `;
}

/** Create a key by a POST to `path`, with the fields `more`, and show its secret. */
export function CreateKey({ path, more = {}, title = "Create a key", done, close }) {
  const [secret, setSecret] = useState(null);
  async function create(fields) {
    const days = fields.get("days");
    const body = {
      ...more,
      label: fields.get("label"),
      scopes: fields.getAll("scopes"),
      limits: limitsOf(fields),
      ...(days ? { expires_in_days: Number(days) } : {}),
    };
    setSecret((await (await send("POST", path, { body })).json()).secret);
  }
  if (secret) return html`<${Secret} secret=${secret} close=${() => done()} />`;
  return html`
    <${Dialog} title=${title} onClose=${close}>
      <${Form} submit="Create" onSubmit=${create} onCancel=${close}>
        <${KeyForm} isNew />
      <//>
    <//>
  `;
}

export function Secret({ secret, note, close }) {
  return html`
    <${Dialog} title="Your new key" fixed onClose=${close}>
      <p>Copy it now and keep it in a safe place: it is not shown again.</p>
      ${note && html`<p>${note}</p>`}
      <p class="secret"><code>${secret}</code></p>
      <div class="buttons">
        <${Copy} text=${secret} label="Copy the key" kind="primary" />
        <button type="button" onClick=${close}>I have saved it</button>
      </div>
    <//>
  `;
}
