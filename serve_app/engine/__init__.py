"""Text to token ids, and token ids to logits. All code that uses torch."""
