"""What a model is, in a few words that its report and its card repeat."""

from __future__ import annotations

from typing import Any

from limner.core.capabilities import HasBound, HasLogProb
from limner.core.model import GenerativeModel


def profile(model: GenerativeModel) -> dict[str, Any]:
    """Facts of a model, as far as it has them.

    Returns:
        ``family``; ``sampling``, the options that it draws with if nobody asks for others, without those that do
        nothing; ``likelihood``, how log p(x) is known: exact, ODE (up to the solver's error) or ELBO (a lower bound).
    """
    defaults = {key: p.default for key, p in model.sampling_options.items()} | dict(model.options)
    kinds = [getattr(model, "likelihood_kind", "exact")] if isinstance(model, HasLogProb) else []
    if kinds != ["exact"] and (isinstance(model, HasBound) or hasattr(model, "elbo")):
        kinds.append("ELBO")
    facts = {
        "family": model.family,
        "sampling": {key: value for key, value in defaults.items() if value not in (None, 0)},
        "likelihood": " or ".join(dict.fromkeys(kinds)),
    }
    return {key: value for key, value in facts.items() if value}
