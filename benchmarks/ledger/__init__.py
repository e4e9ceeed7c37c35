"""Benchmarks of the topic: ledger."""
