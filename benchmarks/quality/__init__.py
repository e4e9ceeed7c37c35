"""Benchmarks of the topic: quality."""
