"""Grafana dashboards, generated as JSON next to these modules: ``python -m cluster.grafana``."""
