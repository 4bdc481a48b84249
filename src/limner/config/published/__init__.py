"""Nets that others published: how their tensors are named, and the call of limner's net that computes the same."""
