"""The dashboard of what tenants notice, over all tenants."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from cluster.grafana.panels import Query, graph, page
from cluster.grafana.queries import DOCUMENTS, FAILURES, REQUESTS, TOKENS, rare_by, rate, ratio


def tenants() -> Dashboard:
    panels = [
        graph(
            "Refused requests by code",
            "reqps",
            "Requests with a status of 400 to 429. The logs have their tenants.",
            rare_by("code", REQUESTS, f'{{code!~"ok|client_gone|{FAILURES}"}}'),
        ),
        graph(
            "Out of credit or over a limit",
            "percentunit",
            "Share of the requests refused because of the tenant's credit, cap or rate limits.",
            ratio(
                rate(REQUESTS, "out_of_credit|spend_cap_reached|rate_limit_exceeded"),
                rate(REQUESTS),
                "refused",
            ),
        ),
        graph(
            "Keys that are not accepted",
            "reqps",
            "Requests without a valid key, and existing key ids with a wrong secret.",
            Query(rate(REQUESTS, "unauthenticated"), "not valid"),
            Query(rate("ray_rerank_wrong_secrets_total"), "wrong secret"),
        ),
        graph(
            "Tokens per document",
            "short",
            "The mean of the charged documents.",
            ratio(rate(TOKENS), rate(DOCUMENTS), "tokens"),
        ),
        graph(
            "Truncated documents",
            "percentunit",
            "Share of the charged documents that were too long for the model and were truncated.",
            ratio(rate("ray_rerank_truncated_documents_total"), rate(DOCUMENTS), "truncated"),
        ),
        graph(
            "Clients that left",
            "percentunit",
            "Share of the requests whose client disconnected before the answer.",
            ratio(rate(REQUESTS, "client_gone"), rate(REQUESTS), "left"),
        ),
    ]
    return page(
        "tenants",
        "Tenants",
        "What tenants notice, over all tenants. `rerank-serve usage` reports about one tenant.",
        {"Tenants": panels},
    )
