/** The audit log: who changed what, newest first. */

import { getAll } from "./api.js";
import { time } from "./format.js";
import { html, useLoad } from "./lib.js";
import { Loaded, Panel, Table } from "./ui.js";

const ENTRIES_MAX = 50;

/**
 * The entries of the list at `path`; they are read again when `turn` changes. `names` are those of
 * keys by their ids.
 */
export function Trail({ path, turn, names = new Map() }) {
  const entries = useLoad((signal) => getAll(path, signal), [path, turn]);
  return html`
    <${Panel} title="Changes" note="The newest changes of accounts, keys and credit.">
      <${Loaded} from=${entries}>
        ${(rows) => html`
          <${Table}
            caption="Changes"
            columns=${[
              { title: "Time", cell: (entry) => time(entry.at) },
              { title: "By", cell: ({ who }) => names.get(who.replace("key ", "")) ?? who },
              { title: "Change", cell: (entry) => entry.action },
              { title: "Of", cell: (entry) => html`${names.get(entry.subject)} <code>${entry.subject}</code>` },
            ]}
            rows=${rows.toReversed().slice(0, ENTRIES_MAX)}
            stacked
          />
        `}
      <//>
    <//>
  `;
}
