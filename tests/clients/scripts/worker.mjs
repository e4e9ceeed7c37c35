// Answer each call of the test with one client of a library; see worker.py.

import { createInterface } from "node:readline";

export const MODEL = "embedded";

// Answer calls with the client whose name is the first argument, until the input ends.
export async function serve(clients) {
  const rerank = clients[process.argv[2]];
  // What a library logs must not end up between the replies.
  console.log = console.info = console.warn = console.error;
  for await (const line of createInterface({ input: process.stdin })) {
    const { top_n: topN, ...call } = JSON.parse(line);
    let reply;
    try {
      reply = await rerank({ ...call, topN });
    } catch (error) {
      reply = { error: described(error) };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
}

function described(error) {
  const chain = [];
  for (let each = error; each && !chain.includes(each); each = each.cause ?? each.lastError) {
    chain.push(each);
  }
  const statuses = chain.map((each) => each.statusCode ?? each.status);
  return {
    type: error.constructor.name,
    statuses: statuses.filter(Number.isInteger),
    text: chain.map(String).join("\n"),
  };
}
