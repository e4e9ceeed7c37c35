"""Tokenize texts and score their token ids. Only this package uses torch."""
