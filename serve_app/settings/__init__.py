"""All settings of the service, with units and limits, validated against each other.

    gateway.Settings       ``args`` of the gateways' application; a change replaces all gateways
    live.LiveSettings      ``user_config`` of the gateways; a change takes effect while they run
    scorer.ScorerSettings  ``args`` of a model's application; a change replaces its scorers

Precedence in ``args``: the config file > environment (``RERANK_...``) > the defaults.
"""

GATEWAY = "gateway"
"""Name of the deployment in the gateways' application."""

SCORER = "scorer"
"""Name of the deployment in each model's application."""
