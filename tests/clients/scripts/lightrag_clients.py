"""LightRAG's rerank functions."""

import asyncio
import sys

from lightrag import rerank
from worker import MODEL, Call, Reply, serve

FUNCTIONS = {"cohere": rerank.cohere_rerank, "jina": rerank.jina_rerank}
NAME = sys.argv[1]


def ask(call: Call) -> Reply:
    results = asyncio.run(
        FUNCTIONS[NAME](
            query=call.query,
            documents=call.documents,
            top_n=call.top_n,
            api_key=call.key,
            model=MODEL,
            base_url=call.address,
        )
    )
    return {"indices": [each["index"] for each in results]}


serve({NAME: ask})
