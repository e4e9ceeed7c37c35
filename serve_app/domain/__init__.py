"""Domain types, units, errors and ranking. Imports no other package of the project."""
