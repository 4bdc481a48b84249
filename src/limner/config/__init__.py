"""From text to objects: names, recipes, and models from their files."""
