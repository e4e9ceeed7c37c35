"""The nouns, units, failures and order of reranking; imports nothing of ours."""
