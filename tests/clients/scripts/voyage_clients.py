"""Voyage's library."""

import asyncio

import voyageai
from worker import MODEL, RETRIES, Call, Reply, serve


def synchronous(call: Call) -> Reply:
    client = voyageai.Client(call.key, max_retries=RETRIES, base_url=call.address)
    return reply(client.rerank(call.query, call.documents, MODEL, top_k=call.top_n))


def asynchronous(call: Call) -> Reply:
    client = voyageai.AsyncClient(call.key, max_retries=RETRIES, base_url=call.address)
    return reply(asyncio.run(client.rerank(call.query, call.documents, MODEL, top_k=call.top_n)))


def reply(answer: voyageai.object.RerankingObject) -> Reply:
    return {
        "indices": [each.index for each in answer.results],
        "texts": [each.document for each in answer.results],
        "usage": {"total_tokens": answer.total_tokens},
    }


serve({"sync": synchronous, "async": asynchronous})
