"""Distribute a tokenized job to replicas: portions, fair queueing, retries."""
