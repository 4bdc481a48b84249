"""Extractors of features, with their weights."""
