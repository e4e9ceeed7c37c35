"""The scoring endpoints."""
