"""LiteLLM's ``rerank`` with the providers whose base URL can be changed."""

import sys

import litellm
from worker import MODEL, RETRIES, Call, Reply, serve

PROVIDER = sys.argv[1]


def rerank(call: Call) -> Reply:
    answer = litellm.rerank(
        f"{PROVIDER}/{MODEL}",
        call.query,
        call.documents,
        top_n=call.top_n,
        api_base=call.address,
        api_key=call.key,
        num_retries=RETRIES,
    )
    meta = answer.meta or {}
    usage = dict(meta.get("billed_units") or {})
    if tokens := meta.get("tokens"):
        usage["total_tokens"] = tokens["input_tokens"]
    return {
        "indices": [each["index"] for each in answer.results],
        "texts": [each["document"]["text"] for each in answer.results if "document" in each],
        "usage": usage,
    }


serve({PROVIDER: rerank})
