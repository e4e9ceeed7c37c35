"""Credit: granted, reserved, charged; and the accounts and keys it belongs to.

`group_commit` is the shell (its thread is in `writer`), `store` the SQL, `rules` the decisions.
Nothing outside this package knows SQL: whoever needs the database gets a connection from `database`
and hands it back to the functions of `accounts`, `usage` or `audit`.
"""
