"""PromQL that several dashboards use. No metric has a tenant or a key as a label."""

from collections.abc import Sequence

from cluster.grafana.panels import Query

REQUESTS = "ray_rerank_requests_total"
DOCUMENTS = "ray_rerank_documents_total"
TOKENS = "ray_rerank_tokens_total"
SCORED_TOKENS = "ray_rerank_scored_tokens_total"
CREDITS = "ray_rerank_credits_total"

FAILURES = (
    "internal|engine_failure|no_replica|ledger_unavailable|reservation_closed|deadline_exceeded"
)
"""The codes with a status of 500 or above."""


def rate(metric: str, codes: str = "") -> str:
    """Return the rate of a counter over all replicas, 0 if it was never incremented.

    ``codes`` selects requests by their error codes, as a regular expression.
    """
    selector = f'{{code=~"{codes}"}}' if codes else ""
    return f"(sum(rate({metric}{selector}[$__rate_interval])) or vector(0))"


def rate_by(label: str, metric: str, selector: str = "") -> Query:
    """Return the rates of a counter by the value of a label."""
    return Query(
        f"sum by ({label}) (rate({metric}{selector}[$__rate_interval]))", f"{{{{{label}}}}}"
    )


def rare_by(label: str, metric: str, selector: str = "") -> Query:
    """Like `rate_by`, but with a series 'none' of value 0 before the counter's first increment."""
    rates = rate_by(label, metric, selector)
    none = f'label_replace(vector(0), "{label}", "none", "", "")'
    return Query(f"{rates.expression} or ({none} unless on () {metric}{selector})", rates.name)


def ratio(part: str, whole: str, name: str) -> Query:
    return Query(f"{part} / {whole}", name)


def quantiles(metric: str, selector: str = "", by: Sequence[str] = ()) -> tuple[Query, Query]:
    """Return queries for the median and the 99th percentile of a histogram.

    Means would be wrong: Ray counts each value as the middle of its bucket in ``_sum``.
    """
    groups = ", ".join(("le", *by))
    names = "".join(f"{{{{{label}}}}} " for label in by)
    rates = f"sum by ({groups}) (rate({metric}_bucket{selector}[$__rate_interval]))"
    p50, p99 = (
        Query(f"histogram_quantile({share}, {rates})", f"{names}p{round(100 * share)}")
        for share in (0.5, 0.99)
    )
    return p50, p99
