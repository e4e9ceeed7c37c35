"""What tests and benchmarks share: real servers, load, model builders and collections."""
