"""One file per question; each is run as ``python -m benchmarks.<question>``."""
