"""The dashboard of replicas, queues, scorers and nodes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from cluster.grafana.panels import Graph, Query, graph, page
from cluster.grafana.queries import REQUESTS, SCORED_TOKENS, TOKENS, quantiles, rare_by, rate, ratio


def capacity() -> Dashboard:
    return page(
        "capacity",
        "Capacity and autoscaling",
        "Replicas, queues, scorers and nodes.",
        {"Replicas and queues": _replicas(), "Scorers": _scorers(), "Nodes": _nodes()},
    )


def _replicas() -> list[Graph]:
    return [
        graph(
            "Replicas",
            "short",
            "Ready replicas, and the number that autoscaling wants, by application.",
            Query("sum by (application) (ray_serve_deployment_replica_healthy)", "{{application}}"),
            Query(
                "max by (application) (ray_serve_autoscaling_target_replicas)",
                "{{application}} wanted",
            ),
        ),
        graph(
            "Backlog",
            "short",
            "Tokens that wait in the gateways for the scorers of a model.",
            Query("sum by (model, revision) (ray_rerank_backlog_tokens)", "{{model}} {{revision}}"),
        ),
        graph(
            "Refused as overloaded",
            "percentunit",
            "Share of the requests that are refused with 429 overloaded.",
            ratio(rate(REQUESTS, "overloaded"), rate(REQUESTS), "refused"),
        ),
        graph(
            "Scored tokens by scorer",
            "short",
            "Tokens per second. A scorer that scores fewer than the others may hang.",
            Query(
                f"sum by (application, replica) (rate({SCORED_TOKENS}[$__rate_interval]))",
                "{{application}} {{replica}}",
            ),
        ),
        graph(
            "Tokens on scorers",
            "short",
            "Tokens that scorers have accepted and not yet answered.",
            Query("sum by (application) (ray_rerank_inflight_tokens)", "{{application}}"),
        ),
        graph(
            "Tokens in gateways",
            "short",
            "Tokens that each gateway has admitted and not yet answered.",
            Query("sum by (replica) (ray_rerank_gate_tokens)", "{{replica}}"),
        ),
    ]


def _scorers() -> list[Graph]:
    return [
        graph(
            "Time in a scorer's queue",
            "s",
            "Time that a portion waited at the scorer before its batch started.",
            *quantiles("ray_rerank_queue_wait_seconds"),
        ),
        graph(
            "Time of a batch",
            "s",
            "Time of one batch on the device.",
            *quantiles("ray_rerank_batch_seconds", by=["application"]),
        ),
        graph(
            "Tokens of a batch",
            "short",
            "Tokens in one batch.",
            *quantiles("ray_rerank_batch_tokens", by=["application"]),
        ),
        graph(
            "Portions sent twice",
            "short",
            "Per second: after a scorer died, or to a second scorer because the first was late.",
            Query(rate("ray_rerank_portion_retries_total"), "died"),
            Query(rate("ray_rerank_portion_hedges_total"), "late"),
        ),
        graph(
            "Scored and answered tokens",
            "short",
            "Per second. Canaries and requests without an answer are scored, but not charged.",
            Query(rate(SCORED_TOKENS), "scored"),
            Query(rate(TOKENS), "answered"),
        ),
        graph(
            "Shadows by result",
            "short",
            "Requests per second that were offered to a canary.",
            rare_by("result", "ray_rerank_shadows_total"),
        ),
    ]


def _nodes() -> list[Graph]:
    return [
        graph(
            "CPU",
            "percent",
            "Utilization of each node's CPUs.",
            Query("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}"),
        ),
        graph(
            "Memory",
            "percentunit",
            "Used share of each node's memory.",
            Query("max by (instance) (ray_node_mem_used / ray_node_mem_total)", "{{instance}}"),
        ),
        graph(
            "Disk",
            "percent",
            "Used share of each node's disk.",
            Query("max by (instance) (ray_node_disk_utilization_percentage)", "{{instance}}"),
        ),
    ]
