/** The page at `/operator`, for those who run the service: load, tenants and credit. */

import { html, render } from "./lib.js";
import { Load } from "./load.js";
import { SignIn, useSession } from "./session.js";
import { Account, Shell, Title, useRoute } from "./shell.js";
import { Tenants } from "./tenants.js";
import { Trail } from "./trail.js";

const VIEWS = [
  ["load", "Load", "What the service is doing now."],
  ["tenants", "Tenants", "Who may use the service, and their credit."],
  ["changes", "Changes", "Every change to tenants, keys and credit, with its author."],
];

function App() {
  const session = useSession();
  const route = useRoute();
  const caller = session.key;
  const isAdmin = caller?.scopes.includes("admin");
  const [name, title, note] = VIEWS.find(([each]) => each === route.view) ?? VIEWS[0];
  return html`
    <${Shell}
      views=${isAdmin ? VIEWS : []}
      current=${name}
      about=${caller && html`<${Account} caller=${caller} leave=${session.leave} />`}
    >
      ${session.loading && html`<p class="muted" role="status">Loading …</p>`}
      ${!session.loading && !isAdmin && html`<${Door} session=${session} />`}
      ${isAdmin && html`
        <${Title} view=${name} note=${note}>${title}<//>
        ${name === "load" && html`<${Load} />`}
        ${name === "tenants" && html`<${Tenants} />`}
        ${name === "changes" && html`<${Trail} path="admin/v1/audit-log" />`}
      `}
    <//>
  `;
}

function Door({ session }) {
  return html`
    <${SignIn} session=${session} title="Operator">
      ${session.key && html`
        <p class="problem">
          The key of this tab has no scope “admin”. Enter one that has it.
        </p>
      `}
      <p>
        An admin key opens the accounts of all tenants: it can read and change their keys, limits
        and credit. It cannot read queries or documents, because none are stored.
      </p>
      <p class="muted">
        Create one with <code>rerank-serve keys create operators --scope admin</code>, give it an
        expiry, and enter it only on a computer that you trust.
      </p>
    <//>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
