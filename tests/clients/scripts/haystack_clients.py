"""Haystack's rankers."""

import sys
from typing import Any

from haystack import Document
from haystack.utils import Secret
from worker import MODEL, RETRIES, Call, Reply, serve


def of_cohere(call: Call) -> Any:
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return CohereRanker(
        model=MODEL,
        top_k=call.top_n,
        api_key=Secret.from_token(call.key),
        api_base_url=call.address,
    )


def of_jina(call: Call) -> Any:
    from haystack_integrations.components.rankers.jina import JinaRanker

    return JinaRanker(
        model=MODEL, top_k=call.top_n, api_key=Secret.from_token(call.key), base_url=call.address
    )


def of_tei(call: Call) -> Any:
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return HuggingFaceTEIRanker(
        url=call.address,
        top_k=call.top_n,
        token=Secret.from_token(call.key),
        max_retries=RETRIES,
    )


def of_vllm(call: Call) -> Any:
    from haystack_integrations.components.rankers.vllm import VLLMRanker

    return VLLMRanker(
        model=MODEL,
        top_k=call.top_n,
        api_key=Secret.from_token(call.key),
        api_base_url=call.address,
    )


def of_nvidia(call: Call) -> Any:
    from haystack_integrations.components.rankers.nvidia import NvidiaRanker

    return NvidiaRanker(
        model=MODEL, top_k=call.top_n, api_key=Secret.from_token(call.key), api_url=call.address
    )


MADE = {
    "cohere": of_cohere,
    "jina": of_jina,
    "tei": of_tei,
    "vllm": of_vllm,
    "nvidia": of_nvidia,
}
NAME = sys.argv[1]


def run(call: Call) -> Reply:
    documents = [
        Document(content=text, meta={"index": index}) for index, text in enumerate(call.documents)
    ]
    answer = MADE[NAME](call).run(query=call.query, documents=documents)
    found = answer["documents"]
    return {
        "indices": [each.meta["index"] for each in found],
        "texts": [each.content for each in found],
        "usage": answer.get("meta", {}).get("usage"),
    }


serve({NAME: run})
