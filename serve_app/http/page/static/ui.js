/** Parts that several views use. */

import { count } from "./format.js";
import { html, useEffect, useId, useRef, useState } from "./lib.js";
import { Problem } from "./problem.js";

/** A part of a page under a heading, with `actions` on its right. */
export function Panel({ title, note, actions, children }) {
  const id = useId();
  return html`
    <section class="panel" aria-labelledby=${id}>
      <header>
        <div>
          <h2 id=${id}>${title}</h2>
          ${note && html`<p class="muted">${note}</p>`}
        </div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </header>
      ${children}
    </section>
  `;
}

/**
 * A label with its input, and a line of help and of what is wrong below. `children` takes the
 * attributes of the input that refer to them.
 */
export function Field({ label, help, fault, children }) {
  const id = useId();
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${children({
        id,
        "aria-describedby": fault ? `${id}-fault` : help ? `${id}-help` : undefined,
        "aria-invalid": fault ? "true" : undefined,
      })}
      ${help && html`<p class="help" id="${id}-help">${help}</p>`}
      ${fault && html`<p class="fault" role="alert" id="${id}-fault">${fault}</p>`}
    </div>
  `;
}

/** A choice of one of a few `options`, each `[value, text]`. */
export function Choice({ label, options, value, onChange }) {
  const name = useId();
  return html`
    <fieldset class="choice">
      <legend class="hidden">${label}</legend>
      ${options.map(([each, text]) => html`
        <label key=${each}>
          <input
            type="radio"
            name=${name}
            checked=${each === value}
            onChange=${() => onChange(each)}
          />
          <span>${text}</span>
        </label>
      `)}
    </fieldset>
  `;
}

/**
 * Rows of cells. A column is `{title, cell, numeric}`; the first cell of a row heads it. On narrow
 * screens, the rows of a `stacked` table are blocks; the roles keep it a table for screen readers.
 */
export function Table({ caption, columns, rows, empty = "None.", stacked = false }) {
  if (!rows.length) return html`<p class="muted empty">${empty}</p>`;
  return html`
    <div class="scroll" tabindex="0" role="group" aria-label=${caption}>
      <table role="table" class=${stacked ? "stacked" : ""}>
        <caption class="hidden">${caption}</caption>
        <thead role="rowgroup">
          <tr role="row">
            ${columns.map((column) => html`
              <th scope="col" role="columnheader" class=${column.numeric ? "numeric" : ""}>${column.title}</th>
            `)}
          </tr>
        </thead>
        <tbody role="rowgroup">
          ${rows.map((row) => html`
            <tr key=${row.id} role="row" class=${row.isChosen ? "chosen" : ""}>
              ${columns.map(({ title, cell, numeric }, place) => place === 0
                ? html`<th scope="row" role="rowheader">${cell(row)}</th>`
                : html`
                  <td role="cell" class=${numeric ? "numeric" : ""} data-title=${title}>
                    ${cell(row)}
                  </td>
                `)}
            </tr>
          `)}
        </tbody>
      </table>
    </div>
  `;
}

export function Badge({ kind = "", title, children }) {
  return html`<span class="badge ${kind}" title=${title}>${children}</span>`;
}

/** Names and values, such as the facts of a model. Values that are null are left out. */
export function Facts({ facts }) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined);
  return html`
    <dl class="facts">
      ${known.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
  `;
}

/** How much of a limit is used; `show` formats both numbers. */
export function Meter({ label, used, limit, show = count }) {
  const share = limit > 0 ? Math.min(1, used / limit) : 1;
  const kind = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "";
  return html`
    <div class="meter">
      <div class="row"><span>${label}</span><span>${show(used)} of ${show(limit)}</span></div>
      <div class="track" aria-hidden="true">
        <div class="fill ${kind}" style=${{ width: `${100 * share}%` }}></div>
      </div>
    </div>
  `;
}

/** A button that copies `text`. */
export function Copy({ text, label = "Copy", kind = "small" }) {
  const [done, setDone] = useState("");
  async function copy({ currentTarget }) {
    const isCopied = await written(text, currentTarget.parentElement);
    setDone(isCopied ? "Copied" : "Select the text to copy it");
    setTimeout(() => setDone(""), 3_000);
  }
  return html`
    <button type="button" class=${kind} onClick=${copy}>${done || label}</button>
    <span class="hidden" role="status">${done}</span>
  `;
}

/** Write `text` to the clipboard. On plain HTTP this needs a selected element in `parent`. */
async function written(text, parent) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(() => true, () => false);
  }
  const box = parent.appendChild(document.createElement("textarea"));
  box.value = text;
  box.select();
  const isCopied = document.execCommand("copy");
  box.remove();
  return isCopied;
}

/** A modal dialog, open as long as it is rendered. Esc closes it, unless `fixed`. */
export function Dialog({ title, onClose, fixed = false, children }) {
  const id = useId();
  const dialog = useRef();
  useEffect(() => {
    const { current } = dialog;
    current.showModal();
    return () => current.close();  // The focus returns to where it was.
  }, []);
  return html`
    <dialog
      ref=${dialog}
      aria-labelledby=${id}
      onClose=${({ target }) => {
        if (!target.isConnected) return;
        if (fixed) target.showModal();  // Browsers close any dialog after a second Esc.
        else onClose();
      }}
      onCancel=${(event) => {
        event.preventDefault();
        if (!fixed) onClose();
      }}
    >
      <h2 id=${id}>${title}</h2>
      ${children}
    </dialog>
  `;
}

/** A form that shows why `onSubmit` failed, and that is sent once at a time. */
export function Form({ submit, kind = "primary", onSubmit, onCancel, children }) {
  const [state, setState] = useState({});
  async function send(event) {
    event.preventDefault();
    if (state.busy) return;
    setState({ busy: true });
    try {
      await onSubmit(new FormData(event.target));
      setState({});
    } catch (error) {
      setState({ error });
    }
  }
  return html`
    <form onSubmit=${send}>
      ${children}
      ${state.error && html`<${Problem} error=${state.error} />`}
      <div class="buttons">
        <button class=${kind} disabled=${state.busy}>${state.busy ? "Please wait …" : submit}</button>
        ${onCancel && html`<button type="button" onClick=${onCancel}>Cancel</button>`}
      </div>
    </form>
  `;
}

/** What a `useLoad` returned: its data in `children`, a placeholder, or why it failed. */
export function Loaded({ from, children }) {
  if (from.error) {
    return html`<${Problem} error=${from.error} retry=${from.reload} repeats=${from.error.isAway} />`;
  }
  if (from.data === undefined) return html`<p class="muted" role="status">Loading …</p>`;
  return html`<div class="stack" aria-busy=${from.loading}>${children(from.data)}</div>`;
}
