"""Batches of portions on a replica: size, isolation, throughput."""
