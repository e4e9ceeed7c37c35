"""The library rerankers, with the form of each server that it can be pointed at."""

import sys

from rerankers import Reranker
from worker import MODEL, Call, Reply, serve

PROVIDER = sys.argv[1]


def rank(call: Call) -> Reply:
    ranker = Reranker(
        MODEL, model_type="APIRanker", api_provider=PROVIDER, api_key=call.key, url=call.address
    )
    found = ranker.rank(call.query, call.documents).top_k(call.top_n)
    return {
        "indices": [each.document.doc_id for each in found],
        "texts": [each.document.text for each in found],
    }


serve({PROVIDER: rank})
