"""Tools for looking at codes: maps, walks, neighbours. They know models only through the protocols of `core.model`."""
