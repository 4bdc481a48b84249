"""Texts as vectors: what captions of images are for a net."""
