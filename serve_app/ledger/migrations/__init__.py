"""The schema's history, run by `serve_app.ledger.schema`."""
