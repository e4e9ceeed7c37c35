"""Infinity's own client."""

from infinity_client.api.default import models, rerank
from infinity_client.client import AuthenticatedClient
from infinity_client.models import RerankInput
from worker import MODEL, Call, Reply, serve


def synchronous(call: Call) -> Reply:
    client = AuthenticatedClient(
        base_url=call.address, token=call.key, raise_on_unexpected_status=True
    )
    assert MODEL in [model.id for model in models.sync(client=client).data]
    body = RerankInput(
        call.query, call.documents, model=MODEL, top_n=call.top_n, return_documents=True
    )
    answer = rerank.sync(client=client, body=body)
    return {
        "indices": [each.index for each in answer.results],
        "texts": [each.document for each in answer.results],
        "usage": {"total_tokens": answer.usage.total_tokens},
    }


serve({"sync": synchronous})
