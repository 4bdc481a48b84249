"""One file per paper. A file's name is the model's name; nothing here imports another model."""
