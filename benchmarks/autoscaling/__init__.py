"""Benchmarks of the topic: autoscaling."""
