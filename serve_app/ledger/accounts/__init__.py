"""Tenants, API keys and credit grants."""
