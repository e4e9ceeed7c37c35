"""Metrics and structured logs for the operator."""
