"""Domain types and pure functions. Imports no other package of the project."""
