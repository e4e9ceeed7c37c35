"""Benchmarks of ranking quality."""
