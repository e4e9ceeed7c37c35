"""Schema migrations, run by `serve_app.ledger.db.schema`."""
