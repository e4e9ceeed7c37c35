"""The ledger: credit, charges, tenant accounts and API keys.

`group_commit` is the asynchronous interface, `writer` its thread, `store` the SQL and `rules` the
decisions. No module outside this package uses SQL. Other packages get a connection from `database`
and pass it to the functions of `accounts`, `usage` or `audit`.
"""
