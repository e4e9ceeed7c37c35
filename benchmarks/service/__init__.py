"""Benchmarks of the topic: service."""
