"""From text to token ids, and from token ids to logits; everything that knows torch."""
