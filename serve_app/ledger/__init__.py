"""Credit, charges, tenant accounts and API keys. No other package uses SQL.

`sql_ledger` is the asynchronous interface of the request path and `back_office` that of reports and
account changes. `writer` commits in groups, `posting` has the SQL of reservations and charges, and
`money` the pure rules.
"""
