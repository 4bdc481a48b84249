"""What is missing, in the words of all checks."""

from __future__ import annotations

YOUNG_YET = "it takes a training of more than 2,000 steps until samples can be judged"
"""What is missing while a model is young."""
NO_SAMPLES = "this model draws no samples, or each takes many evaluations of its net"
"""Why checks of samples are not for a model."""
DEEP = "needs 2,000 samples of the finished model: limner doctor RUN deep=true"
"""What is missing for checks that a training has no time for."""
