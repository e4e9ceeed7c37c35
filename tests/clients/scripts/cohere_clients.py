"""Cohere's library: the v1, v2 and asynchronous clients."""

import asyncio

import cohere
from worker import MODEL, Call, Reply, serve


def v1(call: Call) -> Reply:
    client = cohere.Client(call.key, base_url=call.address)
    answer = client.rerank(
        model=MODEL,
        query=call.query,
        documents=call.documents,
        top_n=call.top_n,
        return_documents=True,
    )
    return {
        "indices": [each.index for each in answer.results],
        "texts": [each.document.text for each in answer.results],
        "usage": {"search_units": answer.meta.billed_units.search_units},
    }


def v2(call: Call) -> Reply:
    client = cohere.ClientV2(call.key, base_url=call.address)
    answer = client.rerank(
        model=MODEL, query=call.query, documents=call.documents, top_n=call.top_n
    )
    return of_v2(answer)


def asynchronous(call: Call) -> Reply:
    async def rerank() -> Reply:
        client = cohere.AsyncClientV2(call.key, base_url=call.address)
        answer = await client.rerank(
            model=MODEL, query=call.query, documents=call.documents, top_n=call.top_n
        )
        return of_v2(answer)

    return asyncio.run(rerank())


def of_v2(answer: cohere.V2RerankResponse) -> Reply:
    return {
        "indices": [each.index for each in answer.results],
        "usage": {"search_units": answer.meta.billed_units.search_units},
    }


serve({"v1": v1, "v2": v2, "async": asynchronous})
