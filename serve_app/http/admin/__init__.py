"""The admin API: routes, lists and the conversion of ledger objects."""
