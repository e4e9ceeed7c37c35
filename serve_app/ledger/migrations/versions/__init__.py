"""One module per schema version. A released version never changes."""
