/** The page at `/`, for a tenant: playground, models, usage and keys. */

import { get } from "./api.js";
import { Keys } from "./keys.js";
import { html, render, useLoad } from "./lib.js";
import { Model } from "./model.js";
import { Models } from "./models.js";
import { Playground } from "./playground.js";
import { SignIn, useSession } from "./session.js";
import { Account, Shell, Title, useRoute } from "./shell.js";
import { Loaded } from "./ui.js";
import { Usage } from "./usage.js";

const NOTES = {
  playground: "Rank documents by how well they answer a query.",
  models: "What this service offers, at which price.",
  usage: "What you used and paid.",
  keys: "Who and what may use your account.",
};

function App() {
  const session = useSession();
  const caller = session.key;
  const route = useRoute();
  const views = caller ? viewsOf(caller) : [];
  const isLocked = caller && route.view in SCOPES && !views.some(([name]) => name === route.view);
  const current = isLocked ? null : views.find(([name]) => name === route.view) ?? views[0];
  return html`
    <${Shell}
      views=${views}
      current=${current?.[0]}
      about=${caller && html`<${Account} caller=${caller} leave=${session.leave} />`}
    >
      ${session.loading && html`<p class="muted" role="status">Loading …</p>`}
      ${!session.loading && !caller && html`<${Welcome} session=${session} />`}
      ${isLocked && html`<${Locked} view=${route.view} key=${route.view} />`}
      ${current && html`
        <${View} view=${current} rest=${route.rest} session=${session} key=${caller.id} />
      `}
    <//>
  `;
}

/** The views that need a scope, and what it allows. */
const SCOPES = {
  playground: ["Playground", "rerank", "rank documents"],
  models: ["Models", "rerank", "rank documents"],
  keys: ["Keys", "manage", "manage keys"],
};

function Locked({ view }) {
  const [title, scope, allowed] = SCOPES[view];
  return html`
    <${Title} view=${view}>${title}<//>
    <p class="problem">This key may not ${allowed}. Ask for a key with the scope “${scope}”.</p>
  `;
}

/** The views that the scopes of the key open. */
function viewsOf({ scopes }) {
  const ranks = scopes.includes("rerank");
  return [
    ranks && ["playground", "Playground"],
    ranks && ["models", "Models"],
    ["usage", "Usage"],
    scopes.includes("manage") && ["keys", "Keys"],
  ].filter(Boolean);
}

function Welcome({ session }) {
  return html`
    <${SignIn} session=${session} title="Rank documents by relevance">
      <p>
        A reranker reads a query with each of your documents, such as the hits of a search, and puts
        the documents that answer it best first. This page calls the same API as your programs: try
        the models, see what they cost, and manage your keys.
      </p>
      <p class="muted">
        Ask the operator of this service for a key. If you run it yourself, ${" "}
        <code>rerank-serve keys create</code> prints one. Operators continue on the ${" "}
        <a href="operator">operator's page</a>.
      </p>
    <//>
  `;
}

function View({ view: [name, title], rest, session }) {
  const caller = session.key;
  const ranks = caller.scopes.includes("rerank");
  const manages = caller.scopes.includes("manage");
  const models = useLoad(
    async (signal) => (ranks ? (await get("v1/models", signal)).data : []),
    [caller.id],
  );
  if (name === "models" && rest) return html`<${Model} id=${rest} key=${rest} />`;
  return html`
    <${Title} view=${name} note=${NOTES[name]}>${title}<//>
    ${name === "usage" && html`<${Usage} caller=${caller} />`}
    ${name === "keys" && html`<${Keys} session=${session} />`}
    ${["playground", "models"].includes(name) && html`
      <${Loaded} from=${models}>
        ${(list) => (!list.length
          ? html`<p class="problem">This key opens no model.</p>`
          : name === "models"
            ? html`<${Models} models=${list} />`
            : html`<${Playground} models=${list} chosen=${rest} manages=${manages} />`)}
      <//>
    `}
  `;
}

render(html`<${App} />`, document.getElementById("app"));
