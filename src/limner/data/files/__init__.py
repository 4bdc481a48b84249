"""Files of images: where they lie, how they are laid out, and how their pixels are read."""
