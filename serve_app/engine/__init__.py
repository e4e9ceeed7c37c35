"""Tokenization and scoring: text to token ids, token ids to logits. All code that uses torch."""
