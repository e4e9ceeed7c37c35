"""The dashboard of the database, charges and events."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from cluster.grafana.panels import Query, graph, page
from cluster.grafana.queries import CREDITS, DOCUMENTS, REQUESTS, quantiles, rare_by, rate, ratio

STAGES = "ray_rerank_stage_seconds"


def ledger() -> Dashboard:
    panels = [
        graph(
            "Time of reserve and commit",
            "s",
            "Includes waiting for the database. When a commit ends, its charge is durable.",
            *quantiles(STAGES, '{stage=~"reserve|commit"}', ["stage"]),
        ),
        graph(
            "Time of authenticate",
            "s",
            "A read of the database, unless the gateway has the key in its cache.",
            *quantiles(STAGES, '{stage="authenticate"}'),
        ),
        graph(
            "Requests that the ledger failed",
            "reqps",
            "Answered with 503 and not charged.",
            rare_by("code", REQUESTS, '{code=~"ledger_unavailable|reservation_closed"}'),
        ),
        graph(
            "Charges",
            "currencyUSD",
            "Dollars per hour.",
            Query(f"3600 * {rate(CREDITS)} / 1e6", "dollars/h"),
        ),
        graph(
            "Price of 1,000 documents",
            "currencyUSD",
            "The mean of the charged documents, in dollars.",
            ratio(f"{rate(CREDITS)} / 1e3", rate(DOCUMENTS), "dollars"),
        ),
        graph(
            "Age of the oldest event",
            "s",
            "Of those that the event sink has not accepted yet. No data without `events_url`.",
            Query("max(ray_rerank_event_age_seconds)", "age"),
        ),
    ]
    return page("ledger", "Ledger", "The database, charges and events.", {"Ledger": panels})
