/** Programs that send the request of the playground. */

export const LANGUAGES = [
  ["curl", "curl"],
  ["cohere", "Python · cohere"],
  ["httpx", "Python · httpx"],
  ["javascript", "JavaScript"],
];

const WRITERS = { curl, cohere, httpx, javascript };

/**
 * The program for `request`, a body of `/v1/rerank`, as text.
 *
 * `address` is that of the service, without a slash at its end. Every program reads the API key
 * from the environment variable RERANK_API_KEY.
 */
export function snippet(language, request, address) {
  return WRITERS[language](request, address);
}

// A here-document takes any text and any size, unlike an argument in quotes.
function curl(request, address) {
  return `# export RERANK_API_KEY=rk_…
curl -s ${address}/v1/rerank \\
  -H "Authorization: Bearer $RERANK_API_KEY" \\
  -H 'Content-Type: application/json' \\
  --data-binary @- <<'END_OF_REQUEST'
${JSON.stringify(request, null, 1)}
END_OF_REQUEST
`;
}

function cohere({ service_tier: tier, ...request }, address) {
  const fields = Object.entries(request).map(([name, value]) => `    ${name}=${python(value, 1)},`);
  if (tier) {
    fields.push(`    request_options={"additional_body_parameters": {"service_tier": "${tier}"}},`);
  }
  return `# pip install cohere; export RERANK_API_KEY=rk_…
import os

import cohere

client = cohere.ClientV2(os.environ["RERANK_API_KEY"], base_url="${address}")
answer = client.rerank(
${fields.join("\n")}
)
for result in answer.results:
    print(result.index, result.relevance_score)
`;
}

function httpx(request, address) {
  return `# pip install httpx; export RERANK_API_KEY=rk_…
import os

import httpx

answer = httpx.post(
    "${address}/v1/rerank",
    headers={"Authorization": f"Bearer {os.environ['RERANK_API_KEY']}"},
    json=${python(request, 1)},
    timeout=60,
)
if answer.is_error:
    raise SystemExit(answer.text)
for result in answer.json()["results"]:
    print(result["index"], result["relevance_score"])
`;
}

function javascript(request, address) {
  return `// A module for Node.js; export RERANK_API_KEY=rk_…
const answer = await fetch("${address}/v1/rerank", {
  method: "POST",
  headers: {
    authorization: \`Bearer \${process.env.RERANK_API_KEY}\`,
    "content-type": "application/json",
  },
  body: JSON.stringify(${JSON.stringify(request, null, 2).replaceAll("\n", "\n  ")}),
});
if (!answer.ok) throw new Error(await answer.text());
for (const { index, relevance_score } of (await answer.json()).results) {
  console.log(index, relevance_score);
}
`;
}

/** A JSON value as a Python literal, in lines that are indented by `depth` steps. */
function python(value, depth) {
  const [outer, inner] = ["    ".repeat(depth), "    ".repeat(depth + 1)];
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value)
    ? value.map((each) => python(each, depth + 1))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!parts.length) return `${open}${close}`;
  return `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${outer}${close}`;
}
