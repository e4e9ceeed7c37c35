/** The frame of both pages: the header with the views, and the view that the address names. */

import { html, useEffect, useRef, useState } from "./lib.js";

/** The view and the rest of an address such as `#/models/embedded`. */
function readRoute() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { view, rest: decoded(rest.join("/")) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;  // A person has edited the address.
  }
}

let hasMoved = false;  // Whether the reader has changed the view since the page was loaded.

export function useRoute() {
  const [route, setRoute] = useState(readRoute);
  useEffect(() => {
    const read = () => {
      hasMoved = true;
      setRoute(readRoute());
    };
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);
  return route;
}

/**
 * The header and the main part. `views` are `[name, title]`; `current` is the name of one.
 * `about` is shown on the right: who is signed in.
 */
export function Shell({ views, current, about, children }) {
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <header class="top">
      <div class="bar">
        <a class="brand" href="./"><span class="logo" aria-hidden="true"></span>rerank-serve</a>
        <nav aria-label="Views">
          ${views.map(([name, title]) => html`
            <a
              key=${name}
              href="#/${name}"
              aria-current=${name === current ? "page" : undefined}
            >${title}</a>
          `)}
          <a href="docs">API<span class="wide-only"> reference</span></a>
        </nav>
        <div class="about">${about}</div>
      </div>
    </header>
    <main id="main" tabindex="-1">${children}</main>
  `;
}

function toMain(event) {
  event.preventDefault();  // The address names the view.
  document.getElementById("main").focus();
}

/** The title of a view. It is focused when the view changes, so that screen readers read it. */
export function Title({ children, view, note }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${heading.current.textContent} · rerank-serve`;
    if (hasMoved) heading.current.focus();
  }, [view]);
  return html`
    <div class="title">
      <h1 ref=${heading} tabindex="-1">${children}</h1>
      ${note && html`<p class="muted">${note}</p>`}
    </div>
  `;
}

/** Who is signed in, with a button to sign out. */
export function Account({ caller, leave }) {
  return html`
    <span class="who">
      <span>${caller.tenant_name}</span>
      <span class="muted">${caller.label}</span>
    </span>
    <button type="button" class="small" onClick=${leave}>Sign out</button>
  `;
}
