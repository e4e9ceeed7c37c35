"""Reports: usage, monthly statements, balances and reconciliation."""
