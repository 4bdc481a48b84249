"""Scores of trained models; they know models only through the protocols of `limner.core.model`."""
