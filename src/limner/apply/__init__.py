"""Tasks of trained models on the user's own images; a model is known only by its capabilities."""
