"""Who is asking: API keys and the caller behind each."""
