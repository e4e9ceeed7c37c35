"""All settings of the service, with units and limits, validated against each other.

    gateway.Settings       ``args`` of the gateways; a change replaces all of them
    live.LiveSettings      ``user_config`` of the gateways; a change takes effect while they run
    scorer.ScorerSettings  ``args`` of a model's scorers; a change replaces them

Precedence in ``args``: the config file > environment (``RERANK_...``) > the defaults.
"""

GATEWAY = "gateway"
"""Deployment in the gateways' application."""

SCORER = "scorer"
"""Deployment in each model's application."""
