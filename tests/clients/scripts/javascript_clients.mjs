// The JavaScript libraries.

import { createCohere } from "@ai-sdk/cohere";
import { CohereRerank } from "@langchain/cohere";
import { rerank as aiRerank } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import OpenAI from "openai";
import { createVoyage } from "voyage-ai-provider";
import { VoyageAIClient } from "voyageai";
import { MODEL, serve } from "./worker.mjs";

async function cohereV1({ address, key, query, documents, topN }) {
  const client = new CohereClient({ token: key, environment: address });
  const answer = await client.rerank({
    model: MODEL, query, documents, topN, returnDocuments: true,
  });
  return {
    indices: answer.results.map((each) => each.index),
    texts: answer.results.map((each) => each.document.text),
    usage: { search_units: answer.meta.billedUnits.searchUnits },
  };
}

async function cohereV2({ address, key, query, documents, topN }) {
  const client = new CohereClientV2({ token: key, environment: address });
  const answer = await client.rerank({ model: MODEL, query, documents, topN });
  return {
    indices: answer.results.map((each) => each.index),
    usage: { search_units: answer.meta.billedUnits.searchUnits },
  };
}

async function voyage({ address, key, query, documents, topN }) {
  const client = new VoyageAIClient({ apiKey: key, environment: address });
  const answer = await client.rerank({
    model: MODEL, query, documents, topK: topN, returnDocuments: true,
  });
  return {
    indices: answer.data.map((each) => each.index),
    texts: answer.data.map((each) => each.document),
    usage: { total_tokens: answer.usage.totalTokens },
  };
}

// Vercel's AI SDK with one of its providers.
async function ai(model, usage, { query, documents, topN }) {
  const answer = await aiRerank({ model, query, documents, topN });
  return {
    indices: answer.ranking.map((each) => each.originalIndex),
    texts: answer.ranking.map((each) => each.document),
    usage: usage(answer.response.body),
  };
}

function aiCohere({ address, key, ...call }) {
  const model = createCohere({ apiKey: key, baseURL: address }).reranking(MODEL);
  return ai(model, (body) => body.meta.billed_units, call);
}

function aiVoyage({ address, key, ...call }) {
  const model = createVoyage({ apiKey: key, baseURL: address }).reranking(MODEL);
  return ai(model, (body) => body.usage, call);
}

async function langchainCohere({ address, key, query, documents, topN }) {
  const client = new CohereClient({ token: key, environment: address });
  const ranker = new CohereRerank({ model: MODEL, topN, client });
  const found = await ranker.compressDocuments(
    documents.map((pageContent, index) => ({ pageContent, metadata: { index } })),
    query,
  );
  return {
    indices: found.map((each) => each.metadata.index),
    texts: found.map((each) => each.pageContent),
  };
}

async function openai({ address, key, query, documents, topN }) {
  const client = new OpenAI({ apiKey: key, baseURL: address });
  const body = { model: MODEL, query, documents, top_n: topN, return_documents: true };
  const answer = await client.post("/rerank", { body });
  return {
    indices: answer.results.map((each) => each.index),
    texts: answer.results.map((each) => each.document.text),
    usage: answer.usage,
  };
}

await serve({
  "cohere-v1": cohereV1,
  "cohere-v2": cohereV2,
  voyage,
  "ai-cohere": aiCohere,
  "ai-voyage": aiVoyage,
  "langchain-cohere": langchainCohere,
  openai,
});
