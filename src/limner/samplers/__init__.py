"""Ways of drawing: free functions of a denoiser, a start and a list of noise levels.

Everything here lives in one coordinate. Whatever a model was trained on, x_t = α·x0 + s·ε, it is asked at x̄ = x_t/α,
whose noise has the standard deviation σ = s/α (Karras et al. 2022, arXiv:2206.00364, section 2). A denoiser D(x̄, σ)
gives E[x0 | x̄] in [-1,1]; no sampler asks for anything else.

* `grids` make lists of noise levels σ: Python floats, from the highest to the lowest, then 0. They are computed before
  the first step, so that a sampler never waits for the device.
* `steps` go down such a list, and `guidance` makes the denoiser of a class.
* `likelihood` measures images, and `restore` draws images that agree with what is known of them.
"""

from __future__ import annotations

from limner.samplers import grids, guidance, likelihood, restore, steps

__all__ = ["grids", "guidance", "likelihood", "restore", "steps"]
