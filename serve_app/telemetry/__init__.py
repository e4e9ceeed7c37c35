"""Metrics, structured logs and traces for the operator."""
