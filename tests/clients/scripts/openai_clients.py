"""OpenAI's library, which can post to any route."""

import asyncio

import openai
from worker import MODEL, Call, Reply, serve


def body(call: Call) -> dict[str, object]:
    return {
        "model": MODEL,
        "query": call.query,
        "documents": call.documents,
        "top_n": call.top_n,
        "return_documents": True,
    }


def reply(answer: dict[str, object]) -> Reply:
    return {
        "indices": [each["index"] for each in answer["results"]],
        "texts": [each["document"]["text"] for each in answer["results"]],
        "usage": answer["usage"],
    }


def synchronous(call: Call) -> Reply:
    with openai.OpenAI(api_key=call.key, base_url=call.address) as client:
        assert MODEL in [model.id for model in client.models.list()]
        return reply(client.post("/rerank", body=body(call), cast_to=dict[str, object]))


def asynchronous(call: Call) -> Reply:
    async def rerank() -> Reply:
        async with openai.AsyncOpenAI(api_key=call.key, base_url=call.address) as client:
            answer = await client.post("/rerank", body=body(call), cast_to=dict[str, object])
        return reply(answer)

    return asyncio.run(rerank())


serve({"sync": synchronous, "async": asynchronous})
