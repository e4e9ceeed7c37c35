"""Everything that knows Ray: one module per Serve deployment, and the clients between them."""
