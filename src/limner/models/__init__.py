"""One file per paper. A file's name is the model's name, and no model imports another."""
