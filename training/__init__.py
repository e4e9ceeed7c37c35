"""How the embedded cross-encoder was made, one command a step; see training/README.md."""
