"""All code that uses Ray: one module per Serve deployment, and the clients between them."""
