"""Losses: pure functions, each with its source.

Unless an argument says otherwise they sum over pixels and take the mean over the batch, and they keep the dtype
they are given. Logarithms are natural: information is in nats.
"""

from __future__ import annotations

from limner.losses import adversarial, divergence, likelihood, penalties, reconstruction, sparsity, style, translation

__all__ = ["adversarial", "divergence", "likelihood", "penalties", "reconstruction", "sparsity", "style", "translation"]
