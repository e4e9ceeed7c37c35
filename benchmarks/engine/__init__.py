"""Benchmarks of the topic: engine."""
