"""Training of the embedded cross-encoder, one command per step; see training/README.md."""
