"""Limits on the requests, refused work, tokens and bytes inside a gateway."""
