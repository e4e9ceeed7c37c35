"""Tenants, API keys and credit grants. `audit_log` records changes in their transactions."""
