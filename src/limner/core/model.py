"""What a model has to offer, and what it may offer besides.

A model is an `nn.Module` with three duties: name its parameter groups, take one training step, draw samples.
Everything else is a capability: a `Protocol` that metrics, latent tools, tasks and the studio ask for with
`isinstance`. None of them ever asks for a class.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core import units
from limner.core.batch import Images, Paired, Styled, Unpaired
from limner.core.errors import LimnerError
from limner.core.spec import Spec

_EVEN = 8  # pixels that a place of relu4_1 stands for, the deepest layer that is painted from

Logs = dict[str, Tensor]
"""Scalars of one step, still on the device: ``loss/*``, ``logit/*``, ``term/*``."""


class Data(Protocol):
    """The source of everything random a step uses: fresh real images and noise.

    Attributes:
        batch: images per step over all ranks.
        position: real images drawn so far, over all ranks.
    """

    batch: int

    @property
    def position(self) -> int: ...

    def __next__(self) -> Any:
        """The next batch: what the model `takes`."""
        ...

    def randn(self, *size: int) -> Tensor:
        """Standard normal noise, `size` on this rank; a function of (seed, position)."""
        ...

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1), `size` on this rank; a function of (seed, position)."""
        ...

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        """`schedule(position)` as a tensor (): a number that changes, for a recorded step too."""
        ...


class Update(Protocol):
    """One descent step on one group: zero, backward on that group alone, synchronise, clip, step.

    A loss that can be computed again is given as a function: optimisers with a line search (L-BFGS) need that.
    """

    def __call__(self, group: str, loss: Tensor | Callable[[], Tensor]) -> None: ...


class GenerativeModel(nn.Module):
    """Base of every model. Images are (B,C,H,W) in [-1,1].

    Attributes:
        spec: the resolved constructor call; with the weights it is the checkpoint.
        averaged: names of the groups that sampling takes from the moving average; None means all.
        takes: what batches are: `Images`, `Paired`, `Unpaired` or `Styled`.
        static: whether all steps of a `phase` are the same operations, so that they can be recorded as a CUDA graph:
            no branch on a number that changes, but those of `phase`, and no number that Python counts.
    """

    spec: Spec
    averaged: tuple[str, ...] | None = None
    takes: type[Images] | type[Paired] | type[Unpaired] | type[Styled] = Images
    static: bool = False

    def groups(self) -> dict[str, nn.Module]:
        """The modules that `update` descends on, by name."""
        raise NotImplementedError

    def step(self, data: Data, update: Update) -> Logs:
        """One iteration of the paper's algorithm box. Never waits for the device."""
        raise NotImplementedError

    def phase(self, data: Data) -> Hashable | None:
        """What the coming step of a `static` model decides on the host; None if it is like no other.

        Steps with equal phases are the same operations on other batches, noise and ``data.scalar`` numbers.
        """
        return ()

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """`n` samples (n,C,H,W) in [-1,1] from `generator`; the model is in evaluation mode.

        A model with a prior and a decoder need not write it: its samples are decoded noise.
        """
        if isinstance(self, HasPrior) and isinstance(self, Decodes):
            return self.decode(self.prior.sample(n, generator), y)
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def check_batch(self, n: int) -> None:
        """Asks every sub-module that cares whether batches of n images per device mean anything to it.

        Raises:
            ValueError: they do not, and what to do.
        """
        for module in self.modules():
            check: Callable[[int], None] | None = getattr(module, "check_batch", None)
            if module is not self and check is not None:
                check(n)

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | int | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        truncation: float | None = None,
        batch: int = 256,
    ) -> Tensor:
        """Draws samples in evaluation mode, a batch at a time, and leaves the mode as it was.

        Args:
            n: number of images.
            y: class index for all, or (n,) class indices, for conditional models; default all classes in turn.
            seed: seeds a fresh generator on the model's device.
            generator: used instead of `seed`.
            truncation: largest size of a number in the noise, for models that draw from a prior: smaller is more
                typical and less varied.
            batch: images drawn at once.

        Returns:
            (n,C,H,W) float32 in [-1,1].

        Raises:
            LimnerError: n, y or truncation mean nothing to this model.
        """
        if n < 1:
            raise LimnerError(f"cannot draw {n} samples; ask for at least 1")
        if isinstance(self, Stylises):
            raise LimnerError(f"{self.spec.name} paints pictures; use limner stylise PHOTO PAINTING model=RUN")
        if isinstance(self, Translates):
            raise LimnerError(f"{self.spec.name} makes pictures of pictures; give it some with limner apply RUN IN OUT")
        if generator is None:
            generator = torch.Generator(self.device)
            generator.manual_seed(seed) if seed is not None else generator.seed()
        labels = self._labels(n, y)
        draw = self.draw if truncation is None else self._truncated(truncation)
        mode = self.training
        self.eval()
        try:
            with _tied(generator):
                parts = [
                    draw(min(batch, n - i), None if labels is None else labels[i : i + batch], generator)
                    for i in range(0, n, batch)
                ]
        finally:
            self.train(mode)
        return torch.cat(parts).float()

    def _truncated(self, truncation: float) -> Callable[[int, Tensor | None, torch.Generator], Tensor]:
        if not (isinstance(self, HasPrior) and isinstance(self, Decodes)):
            raise LimnerError(f"{self.spec.name} draws from no prior that could be truncated; leave truncation out")
        return lambda n, y, generator: self.decode(self.prior.sample(n, generator, truncation), y)

    def _labels(self, n: int, y: Tensor | int | None) -> Tensor | None:
        if not isinstance(self, Conditions):
            if y is not None:
                raise LimnerError(f"{self.spec.name} is not conditional; leave the class out")
            return None
        if y is None:
            return torch.arange(n, device=self.device) % self.classes
        labels = torch.as_tensor(y, device=self.device).expand(n) if isinstance(y, int) else y.to(self.device)
        if len(labels) != n or int(labels.min()) < 0 or int(labels.max()) >= self.classes:
            raise LimnerError(f"class labels must be {n} integers from 0 to {self.classes - 1}")
        return labels


@contextmanager
def _tied(generator: torch.Generator) -> Iterator[None]:
    """Seeds the default generators from `generator`, for nets with noise of their own (dropout), and restores them."""
    kind, index = generator.device.type, generator.device.index or 0
    with torch.random.fork_rng([]) if kind == "cpu" else torch.random.fork_rng([index], device_type=kind):
        torch.default_generator.manual_seed(generator.initial_seed())
        if kind != "cpu":
            getattr(torch, kind).manual_seed(generator.initial_seed())
        yield


@runtime_checkable
class Encodes(Protocol):
    """Maps images to codes."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,…) of images (B,C,H,W)."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Maps codes to images."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of codes (B,…)."""
        ...


@runtime_checkable
class Reconstructs(Encodes, Decodes, Protocol):
    """An autoencoder of any kind."""


@runtime_checkable
class Corrupts(Protocol):
    """Trained to undo a corruption it can also apply."""

    def corrupt(self, x: Tensor, noise: Callable[..., Tensor]) -> Tensor:
        """Corrupted images (B,C,H,W); `noise(*size)` gives standard normal numbers."""
        ...


@runtime_checkable
class Translates(Protocol):
    """Makes pictures of one domain from pictures of another.

    Attributes:
        domains: what it can translate to: ``("b",)``, or ``("b", "a")`` for both ways.
        source: (C,H,W) of the pictures that domain a had in training; any H and W will do.
        shape: (C,H,W) of those of domain b.
        pairing: how sources were made of targets (name and amount); None where both were given.
    """

    domains: tuple[str, ...]
    source: tuple[int, int, int]
    shape: tuple[int, int, int]
    pairing: dict[str, Any] | None

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """Pictures (B,C,H,W) in [-1,1] of domain `to`, of pictures (B,C',H,W) of the other."""
        ...


@runtime_checkable
class Stylises(Protocol):
    """Paints pictures in the style of any other picture; `stylised` puts the three together."""

    def look(self, x: Tensor) -> Tensor:
        """Maps (B,N,h,w) of pictures (B,3,H,W) in [-1,1]."""
        ...

    def restyle(self, maps: Tensor, style: Tensor) -> Tensor:
        """Maps (B,N,h,w) with the statistics of the maps of a style (B or 1,N,h',w')."""
        ...

    def paint(self, maps: Tensor) -> Tensor:
        """Pictures of maps."""
        ...


@runtime_checkable
class Conditions(Protocol):
    """Generates a wanted class."""

    classes: int


@runtime_checkable
class Bounds(Protocol):
    """Bounds the likelihood by importance sampling.

    Attributes:
        measure: what p(x) is: ``bernoulli`` pixels, a ``density`` on [-1,1], or that of ``discrete`` grey values.
    """

    measure: str

    def log_weights(self, x: Tensor, k: int, noise: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        """Log p(x,z)/q(z|x) in nats, (k,B), for k draws of z per image."""
        ...


class Noise(Protocol):
    """A prior that can be sampled, wholly or near its middle."""

    def sample(self, n: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
        """Noise (n,z) on the generator's device."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """Draws samples by decoding noise."""

    prior: Noise


class Generates(HasPrior, Decodes, Protocol):
    """Its samples are decoded noise."""


@runtime_checkable
class HasPosterior(Protocol):
    """Gives a whole distribution of codes for an image, N(mean, exp(logvar)) of independent numbers."""

    def posterior(self, x: Tensor, *y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B,z); a conditional model is given the classes too."""
        ...


@runtime_checkable
class Scores(Protocol):
    """Knows the likelihood of an image; a `measure`, as of `Bounds`, says of what: by default a density on [-1,1]."""

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log p(x) in nats, (B,), of images (B,C,H,W)."""
        ...


@runtime_checkable
class Criticises(Protocol):
    """Has a critic whose judgement moves the samples."""

    def critic(self, x: Tensor) -> Tensor:
        """Logits (B,) of images (B,C,H,W); high means real."""
        ...

    def pull(self, fake: Tensor, real: Tensor) -> Tensor:
        """Where the generator's loss would move each sample, of the shape of `fake` (B,C,H,W)."""
        ...


@runtime_checkable
class ScoresSamples(Protocol):
    """Tells ordinary images from anomalous ones."""

    def score_samples(self, x: Tensor) -> Tensor:
        """(B,), higher is more ordinary (the sign of scikit-learn's `score_samples`)."""
        ...


@torch.inference_mode()
def translated(model: Translates, x: Tensor, to: str = "b", *, seed: int = 0, batch: int = 16) -> Tensor:
    """Translations (B,C,H,W) of pictures x (B,C',H,W), a batch at a time, with the noise (dropout) of a seed.

    Args:
        model: in evaluation mode.
        x: pictures on any device.
        to: the domain wanted.
        seed: of the noise that some nets have when they are used, too.
        batch: pictures at once.

    Raises:
        LimnerError: the model does not translate to that domain.
    """
    if to not in model.domains:
        raise LimnerError(f"this model translates to {' or '.join(model.domains)} only; leave to={to} out")
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    with _tied(torch.Generator(device).manual_seed(seed)):
        return torch.cat([model.translate(part.to(device), to).float() for part in x.split(batch)])


def stylised(
    model: Stylises,
    x: Tensor,
    styles: Sequence[Tensor],
    *,
    strength: float = 1.0,
    shares: Sequence[float] | None = None,
) -> Tensor:
    """Pictures (B,3,H,W) in [-1,1] in the style of one painting, or between those of several.

    Huang and Belongie 2017, *Arbitrary style transfer in real-time*, eq. 14 and 15.

    Args:
        model: in evaluation mode.
        x: pictures (B,3,H,W) in [-1,1].
        styles: what the model sees in each painting (`look`), (B or 1,N,h,w); looked at once, used for many pictures.
        strength: 0 is no style, 1 all of it.
        shares: of several styles, not negative; equal by default.

    Raises:
        LimnerError: shares that do not fit.
    """
    h, w = x.shape[2:]
    maps = model.look(F.pad(x, (0, -w % _EVEN, 0, -h % _EVEN), mode="replicate"))
    t = torch.zeros_like(maps)
    for share, style in zip(units.shares(shares, len(styles), "style_shares"), styles, strict=True):
        t = t + share * model.restyle(maps, style)
    return model.paint(maps + strength * (t - maps))[..., :h, :w].float().clamp(-1, 1)


def each(net: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
    """What a net makes of every part (B,C,H,W): in one pass where it looks at each image alone.

    Batch norm looks at the whole batch: with it one pass would be another net, so parts go through one after the other.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        return tuple(net(part) for part in parts)
    return net(torch.cat(parts)).split([len(part) for part in parts])


def reconstruct(model: Reconstructs, x: Tensor, y: Tensor | None = None) -> Tensor:
    """decode(encode(x)), (B,C,H,W) in [-1,1]."""
    return model.decode(model.encode(x, y), y)


def parameters(model: GenerativeModel) -> dict[str, dict[str, int]]:
    """Numbers of parameters per group.

    Returns:
        ``{group: {"total": .., "trainable": .., "buffers": ..}}``. Batch-norm statistics count as buffers; the
        step counter of a batch norm does not count.
    """
    return {name: counts(module) for name, module in model.groups().items()}


def counts(module: nn.Module) -> dict[str, int]:
    """Total, trainable and buffer numbers of one module."""
    weights = list(module.parameters())
    buffers = [b for n, b in module.named_buffers() if not n.endswith("num_batches_tracked")]
    return {
        "total": sum(p.numel() for p in weights),
        "trainable": sum(p.numel() for p in weights if p.requires_grad),
        "buffers": sum(b.numel() for b in buffers),
    }


def load_weights(model: GenerativeModel, weights: dict[str, Any]) -> None:
    """Loads a state dict strictly.

    Raises:
        LimnerError: names or shapes do not fit the model.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise LimnerError(f"these weights do not fit {model.spec.name}: {reason}") from None
