"""The model behind `source: embedded`: it comes with the package, so no hub is needed."""
