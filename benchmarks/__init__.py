"""Benchmarks, one file per question; run one with ``python -m benchmarks.<folder>.<file>``."""
