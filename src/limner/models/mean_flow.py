"""Mean flow: a net learns the mean velocity between two times, so one step suffices to draw an image.

Geng, Deng, Bai, Kolter and He 2025, *Mean flows for one-step generative modeling*, arXiv:2505.13447, Algorithms 1 and
2.

    repeat
        x ~ data;  ε ~ N(0, I);  r ≤ t
        z_t = (1 − t) x + t ε;  v = ε − x
        u = F(z_t, r, t);  du/dt by jvp along (v, 0, 1)
        descend  ‖u − stop(v − (t − r) du/dt)‖²,  weighted by 1 / (error + c)^p
    draw    z_1 ~ N(0, I);  z_0 = z_1 − F(z_1, 0, 1)

For a share 1 − `ratio` of a batch r = t, where u is the velocity v of flow matching; so the same net also has a
denoiser and all that follows from it. Departures: exactly this share of each batch, so that the derivative is computed
for the others only; guidance is trained in by eq. 19 with u of the null class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from limner.core.errors import LimnerError
from limner.core.model import Data, Logs, Update
from limner.core.rng import Noise
from limner.losses.reconstruction import weighted_mse
from limner.nets.protocols import Denoiser
from limner.samplers.diffusion import DiffusionModel, Sampling


@dataclass(frozen=True, kw_only=True)
class MeanFlowSampling(Sampling):
    """How a mean flow draws its samples.

    Args:
        steps: number of steps from noise to an image; one is what it is made for.
        sampler: mean_flow takes long steps along the mean velocity; the others go along the velocity, as those of
            `samplers.diffusion.Sampling` do, and need many steps.

    Raises:
        LimnerError: guidance is asked of the sampler mean_flow, which has that of the training.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    sampler: Literal["mean_flow", "dpm2m", "euler", "heun", "ancestral"] = "mean_flow"  # type: ignore[assignment]

    @property
    def is_long(self) -> bool:
        """Whether a step goes along the mean velocity."""
        return self.sampler == "mean_flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_long and self.guidance != 1:
            raise LimnerError(
                "the guidance of a mean flow is trained in (model.guidance); leave it out, or write sampler=dpm2m"
            )


class MeanFlow(DiffusionModel):
    """A net that gives the mean velocity from time t back to time r.

    Args:
        F: net with ``times: 2``, from z_t, t and t − r to a velocity (denoiser.UNet, or denoiser.MLP for points).
        ratio: share of a batch with r < t. Raise it for better images in one step; lower it for a better velocity and
            faster steps.
        mean: mean of the logits of t and r. Raise it to train more on noise; lower it for details.
        std: standard deviation of these logits.
        p: power of the adaptive weight; 0 is a plain squared error, which points need: the error of an image is nearly
            the same for all noise, that of a point is not, and weighting by it moves the mean that is learnt.
        guidance: scale of the guidance by classes that is trained in; 1 is none. Raise it for images that show their
            class more clearly; it cannot be changed after training.
        drop: share of the labels that are hidden in training; guidance needs some.
        sampling: options of `samplers.diffusion.Sampling` that replace one step of the sampler mean_flow.
        shape: (C,H,W) of an image; filled from the data.
        classes: number of classes; filled from the data.
        condition: names of the classes; filled from the data.
    """

    family = "flow matching"
    Options = MeanFlowSampling
    static = False  # forward derivatives are not recorded

    def __init__(
        self,
        F: Denoiser,
        ratio: float = 0.25,
        mean: float = -0.4,
        std: float = 1.0,
        p: float = 1.0,
        guidance: float = 1.0,
        drop: float = 0.1,
        sampling: dict[str, object] | None = None,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(F, F.classes, drop, sampling, shape, classes, condition)
        if F.times != 2:
            raise ValueError("a mean flow needs a net of two times; write times: 2")
        if not 0 < ratio <= 1 or not std > 0 or p < 0:
            raise ValueError(f"ratio={ratio:g} must be in (0,1], std={std:g} above 0 and p={p:g} not negative")
        if guidance != 1 and self.null is None:
            raise ValueError("guidance needs a net that knows classes; write F.conditional: true, or guidance: 1")
        self.ratio, self.mean, self.std, self.p, self.guidance = ratio, mean, std, p, guidance

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], (B,)
        n = max(1, round(self.ratio * len(x)))  # images with r < t
        y = self.dropped(y, data)
        times = torch.sigmoid(self.mean + self.std * data.randn(len(x), 2))
        t, r = times.amax(1), torch.cat([times[:n].amin(1), times[n:].amax(1)])  # (B,) each
        noise = data.randn(*x.shape)
        z, v = torch.lerp(x, noise, t.view(-1, 1, 1, 1)), self._guided_velocity(noise - x, x, noise, t, y)
        u, target = self._mean_and_target(z[:n], v[:n], t[:n], r[:n], None if y is None else y[:n])
        if n < len(x):
            u = torch.cat([u, self._u(z[n:], t[n:], r[n:], None if y is None else y[n:])])
            target = torch.cat([target, v[n:]])
        error = (u.detach() - target).square().flatten(1).mean(1)  # (B,)
        loss = weighted_mse(u, target, (error + 1e-3) ** -self.p)
        update("F", loss)
        return {"loss/F": loss, "term/error": error.mean()}

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        """Samples (n,C,H,W) in a few long steps, or by a sampler along the velocity."""
        sampling = replace(self.sampling, **options)
        if not (isinstance(sampling, MeanFlowSampling) and sampling.is_long):
            return super().draw(n, y, noise, **options)
        z = noise(0, *self.shape)
        for i in range(sampling.steps, 0, -1):
            t, r = z.new_full((n,), i / sampling.steps), z.new_full((n,), (i - 1) / sampling.steps)
            z = z - self._u(z, t, r, y) / sampling.steps
        return z if self.is_points else z.clamp(-1, 1)

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """z_t − t F(z_t, t, t) (B,C,H,W) of x = z_t / (1 − t) (B,C,H,W) with sigma = t / (1 − t) (B,)."""
        t = sigma / (1 + sigma)
        z = x / (1 + sigma).view(-1, 1, 1, 1)
        return z - t.view(-1, 1, 1, 1) * self._u(z, t, t, y)

    def path(self) -> list[float]:
        """The noise levels at which `encode` and `decode` stop: 10 unless a sampler along the velocity is chosen."""
        sampling = self.sampling
        is_long = isinstance(sampling, MeanFlowSampling) and sampling.is_long
        return self.at(sampler="dpm2m", steps=10).path() if is_long else super().path()

    def _u(self, z: Tensor, t: Tensor, r: Tensor, y: Tensor | None) -> Tensor:
        """The mean velocity (B,C,H,W) from t (B,) back to r (B,)."""
        out: Tensor = self.F(z, torch.stack([t, t - r], 1), y)
        return out.float()

    def _mean_and_target(self, z: Tensor, v: Tensor, t: Tensor, r: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean velocity u and the value v − (t − r) du/dt that it should have (eq. 10, 11), both (n,C,H,W)."""

        def u(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
            return self._u(z, t, r, y)

        value, slope = torch.func.jvp(u, (z, t, r), (v, torch.ones_like(t), torch.zeros_like(r)))[:2]
        return value, v - (t - r).view(-1, 1, 1, 1) * slope.detach()

    def _guided_velocity(self, v: Tensor, x: Tensor, noise: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The velocity with guidance, g v + (1 − g) u(z_t, t, t) with u of the null class (B,C,H,W): eq. 19."""
        if self.guidance == 1:
            return v
        with torch.no_grad():
            z = torch.lerp(x, noise, t.view(-1, 1, 1, 1))
            return torch.lerp(self._u(z, t, t, None), v, self.guidance)
