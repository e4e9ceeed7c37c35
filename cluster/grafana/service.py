"""The dashboard of the objectives, the requests and HAProxy."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from cluster.grafana.panels import Graph, Query, graph, number, page
from cluster.grafana.queries import (
    DOCUMENTS,
    FAILURES,
    REQUESTS,
    TOKENS,
    quantiles,
    rare_by,
    rate,
    rate_by,
    ratio,
)


def service() -> Dashboard:
    return page(
        "service",
        "Service",
        "Objectives, requests and their times.",
        {"Objectives": _objectives(), "Requests": _requests(), "HAProxy": _haproxy()},
    )


def _objectives() -> list[Graph]:
    return [
        number(
            "Requests that did not fail",
            "percentunit",
            "In the last hour. The objective for 30 days is 99.9 %.",
            Query("1 - rerank:failures:ratio1h", "availability"),
        ),
        number(
            "Answers within 2 s",
            "percentunit",
            "In the last hour. The objective for 30 days is 99 %.",
            Query("1 - rerank:slow_answers:ratio1h", "fast"),
        ),
        number(
            "Firing alerts",
            "short",
            "docs/operate/runbook.md has a section for each alert.",
            Query(
                'count(ALERTS{alertname=~"Rerank.+",alertstate="firing"}) or vector(0)', "alerts"
            ),
        ),
        _burn_rate("Burn rate of failed requests", "failures", "0.001"),
        _burn_rate("Burn rate of slow answers", "slow_answers", "0.01"),
        graph(
            "Failed requests by code",
            "reqps",
            "Requests with a status of 500 or above. None of them was charged.",
            rare_by("code", REQUESTS, f'{{code=~"{FAILURES}"}}'),
        ),
    ]


def _burn_rate(title: str, what: str, allowed: str) -> Graph:
    return graph(
        title,
        "short",
        "At 1, the budget lasts exactly 30 days. Alerts start at 14.4 for an hour and at 6 for six "
        "hours.",
        *(
            Query(f"rerank:{what}:ratio{window} / {allowed}", window)
            for window in ("5m", "1h", "6h")
        ),
    )


def _requests() -> list[Graph]:
    return [
        graph(
            "Requests by code",
            "reqps",
            "All requests of the routes that score, by error code.",
            rate_by("code", REQUESTS),
        ),
        graph(
            "Time to answer",
            "s",
            "From the last header read to the answer, for requests answered with 200.",
            *quantiles("ray_rerank_request_seconds", '{code="ok"}'),
        ),
        graph(
            "Time by stage",
            "s",
            "The 99th percentile of each stage. The stages tokenize and reserve overlap.",
            quantiles("ray_rerank_stage_seconds", by=["stage"])[1],
        ),
        graph(
            "Answered documents",
            "short",
            "Documents per second in answers that were charged.",
            Query(rate(DOCUMENTS), "documents/s"),
        ),
        graph(
            "Answered tokens",
            "short",
            "Tokens per second in answers that were charged.",
            Query(rate(TOKENS), "tokens/s"),
        ),
        graph(
            "Documents per request",
            "short",
            "The mean of the answered requests. Large requests take longer.",
            ratio(rate(DOCUMENTS), rate(REQUESTS, "ok"), "documents"),
        ),
    ]


def _haproxy() -> list[Graph]:
    return [
        graph(
            "Answers of HAProxy by class",
            "reqps",
            "Includes requests that HAProxy refuses, which no gateway counts.",
            rate_by("code", "haproxy_frontend_http_responses_total", '{proxy="http_frontend"}'),
        ),
        graph(
            "Connections",
            "short",
            "Connections of clients to each node's HAProxy.",
            Query(
                'sum by (instance) (haproxy_frontend_current_sessions{proxy="http_frontend"})',
                "{{instance}}",
            ),
        ),
        graph(
            "Gateways in use",
            "short",
            "Gateways that pass the checks of each node's HAProxy.",
            Query(
                'sum by (instance) (haproxy_backend_active_servers{proxy=~"http-.+"})',
                "{{instance}}",
            ),
        ),
    ]
