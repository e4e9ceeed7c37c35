"""LangChain's document compressors."""

import sys
from typing import Any

from langchain_core.documents import Document
from worker import MODEL, Call, Reply, serve


def of_cohere(call: Call) -> Any:
    from langchain_cohere import CohereRerank

    return CohereRerank(
        model=MODEL, top_n=call.top_n, base_url=call.address, cohere_api_key=call.key
    )


def of_voyage(call: Call) -> Any:
    from langchain_voyageai import VoyageAIRerank

    return VoyageAIRerank(model=MODEL, top_k=call.top_n, base_url=call.address, api_key=call.key)


def of_infinity(call: Call) -> Any:
    from infinity_client.client import Client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    # It accepts no AuthenticatedClient.
    client = Client(
        base_url=call.address,
        headers={"Authorization": f"Bearer {call.key}"},
        raise_on_unexpected_status=True,
    )
    return InfinityRerank(client=client, model=MODEL, top_n=call.top_n)


def of_nvidia(call: Call) -> Any:
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    return NVIDIARerank(
        model=MODEL,
        top_n=call.top_n,
        base_url=call.address,
        api_key=call.key,
        max_batch_size=len(call.documents),
    )


MADE = {"cohere": of_cohere, "voyage": of_voyage, "infinity": of_infinity, "nvidia": of_nvidia}
NAME = sys.argv[1]


def compress(call: Call) -> Reply:
    documents = [
        Document(text, metadata={"index": index}) for index, text in enumerate(call.documents)
    ]
    found = MADE[NAME](call).compress_documents(documents, call.query)
    reply: Reply = {
        "indices": [each.metadata["index"] for each in found],
        "texts": [each.page_content for each in found],
    }
    if found and "total_tokens" in found[0].metadata:
        reply["usage"] = {"total_tokens": found[0].metadata["total_tokens"]}
    return reply


serve({NAME: compress})
