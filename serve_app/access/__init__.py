"""Authentication: API keys and the caller behind each."""
