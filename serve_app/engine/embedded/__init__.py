"""The model behind `source: embedded`. It ships with the package, so it needs no hub."""
