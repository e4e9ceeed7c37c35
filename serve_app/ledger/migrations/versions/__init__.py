"""One module per step of the schema's history; a step that was released never changes."""
