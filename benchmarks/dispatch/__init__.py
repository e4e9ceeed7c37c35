"""Benchmarks of deadline admission and of the inflight window, on simulated replicas."""
