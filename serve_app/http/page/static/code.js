/** A request as a program to copy. */

import { html, useKept } from "./lib.js";
import { LANGUAGES, snippet } from "./snippets.js";
import { Choice, Copy, Panel } from "./ui.js";

const SHOWN_CHARACTERS_MAX = 20_000;

export function Code({ request, note }) {
  const [language, setLanguage] = useKept("code.language", "curl");
  const address = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const text = snippet(language, request, address);
  const shown = text.length > SHOWN_CHARACTERS_MAX
    ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}\n… (the copy has all of it)`
    : text;
  return html`
    <${Panel}
      title="Use it in your code"
      note=${note}
      actions=${html`<${Copy} text=${text} label="Copy the code" />`}
    >
      <${Choice}
        label="Language"
        options=${LANGUAGES}
        value=${language}
        onChange=${setLanguage}
      />
      <pre tabindex="0" aria-label="Program">${shown}</pre>
    <//>
  `;
}
