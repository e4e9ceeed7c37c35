/** The inputs of a new or changed API key. */

import { html } from "./lib.js";
import { LimitInputs } from "./limits.js";
import { Field } from "./ui.js";

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
