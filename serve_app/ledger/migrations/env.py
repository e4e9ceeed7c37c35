"""Alembic environment. Migrations run on the caller's connection, in its transaction."""

from alembic import context

from serve_app.ledger.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite needs a copy of the table for most changes.
)
context.run_migrations()
