"""The ledger: credit, charges, tenant accounts and API keys.

`sql_ledger` is the asynchronous interface of the request path and `back_office` that of reports and
account changes. `writer` is the thread that commits in groups, `posting` the SQL of reservations
and charges, `money` the pure rules. No module outside this package uses SQL. Other packages get a
connection from `db.engines` and pass it to the functions of `accounts` or `reports`.
"""
