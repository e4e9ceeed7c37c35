"""LlamaIndex's node postprocessors."""

import sys
from typing import Any

from llama_index.core.schema import NodeWithScore, TextNode
from worker import MODEL, Call, Reply, serve


def of_cohere(call: Call) -> Any:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return CohereRerank(top_n=call.top_n, model=MODEL, api_key=call.key, base_url=call.address)


def of_jina(call: Call) -> Any:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return JinaRerank(top_n=call.top_n, model=MODEL, api_key=call.key, base_url=call.address)


def of_tei(call: Call) -> Any:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return TextEmbeddingInference(top_n=call.top_n, base_url=call.address, auth_token=call.key)


def of_voyage(call: Call) -> Any:
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    made = VoyageAIRerank(model=MODEL, api_key=call.key, top_n=call.top_n)
    # Its constructor has no parameter for the base URL.
    made._client._params["base_url"] = call.address
    return made


def of_nvidia(call: Call) -> Any:
    from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

    return NVIDIARerank(
        model=MODEL,
        top_n=call.top_n,
        base_url=call.address,
        api_key=call.key,
        max_batch_size=len(call.documents),
    )


MADE = {
    "cohere": of_cohere,
    "jina": of_jina,
    "tei": of_tei,
    "voyage": of_voyage,
    "nvidia": of_nvidia,
}
NAME = sys.argv[1]


def postprocess(call: Call) -> Reply:
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_=str(index)))
        for index, text in enumerate(call.documents)
    ]
    found = MADE[NAME](call).postprocess_nodes(nodes, query_str=call.query)
    return {
        "indices": [int(each.node.node_id) for each in found],
        "texts": [each.node.text for each in found],
    }


serve({NAME: postprocess})
