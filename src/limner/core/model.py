"""What every model offers: parameter groups, a training step, samples.

A model is an `nn.Module` with these three duties. Whatever else it can do is a capability
(`limner.core.capabilities`), asked for with `isinstance`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limner.core.batch import Images
from limner.core.capabilities import Conditional, Decodes, HasPrior, Reconstructs
from limner.core.errors import LimnerError
from limner.core.previews import COLUMNS, Grid, reconstructions
from limner.core.rng import seeded

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
        """The next batch, of the model's `batch_type`."""
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


class Description(Protocol):
    """The constructor call that a model was built by; `limner.config.spec.Spec` is one."""

    @property
    def name(self) -> str:
        """The model's name in the catalogue."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The call as plain values."""
        ...


class GenerativeModel(nn.Module):
    """Base of every model. Images are (B,C,H,W) in [-1,1].

    Attributes:
        spec: the constructor call with everything that the data decided; with the weights it is the checkpoint.
        ema_groups: names of the groups that sampling takes from the moving average; None means all.
        batch_type: what a batch is; a type of `limner.core.batch.KINDS`.
        preview_facts: what a report says of the model's previews.
        usage: the command that uses a model which makes images of images.
        static: whether all steps of a `phase` are the same operations, so that they can be recorded as a CUDA graph:
            no branch on a number that changes, but those of `phase`, and no number that Python counts.
    """

    spec: Description
    ema_groups: tuple[str, ...] | None = None
    batch_type: type = Images
    preview_facts: Mapping[str, str] = MappingProxyType({})
    usage: str = "limner apply RUN IN OUT"
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

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator, **options: Any) -> Tensor:
        """`n` samples (n,C,H,W) in [-1,1] from `generator`; the model is in evaluation mode.

        A model with a prior and a decoder need not write it: `sample` decodes noise of the prior. One that writes it
        declares what `sample` lets one choose as keyword-only arguments with defaults.

        Args:
            n: number of images.
            y: labels (n,…) of a conditional model, in the form of its `condition`, else None.
            generator: source of all noise.
            **options: what the model declares.

        Raises:
            LimnerError: the model makes images of images.
        """
        raise LimnerError(f"{self.spec.name} makes images of images; use {self.usage}")

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

    @property
    def sampling_options(self) -> dict[str, inspect.Parameter]:
        """The options that `sample` takes for this model, by name, as `draw` or the prior declares them."""
        owner: Any = self.prior.sample if self._decodes_noise and isinstance(self, HasPrior) else self.draw
        return {p.name: p for p in inspect.signature(owner).parameters.values() if p.kind is p.KEYWORD_ONLY}

    @property
    def _decodes_noise(self) -> bool:
        """Whether samples are decoded noise, and not what a `draw` of the model's own makes."""
        return isinstance(self, HasPrior) and isinstance(self, Decodes) and type(self).draw is GenerativeModel.draw

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        y: Any = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        batch: int = 256,
        **options: Any,
    ) -> Tensor:
        """Draws samples in evaluation mode, a batch at a time, and leaves the mode as it was.

        A model that decodes noise draws the noise of all n samples first, so `batch` decides memory and speed and not
        the samples: they agree up to rounding, because kernels may differ with the size of a batch. Nothing of the kind
        is promised where something else is random in use: dropout that stays on, or a `draw` of the model's own.

        Args:
            n: number of images.
            y: what to draw, for conditional models: a label for all, or n labels; by default all classes in turn.
            seed: seeds a fresh generator on the model's device.
            generator: used instead of `seed`.
            batch: images made at once. Lower it if memory is short.
            **options: what else the model lets one choose; `sampling_options` lists it.

        Returns:
            (n,C,H,W) float32 in [-1,1].

        Raises:
            LimnerError: n, y or an option means nothing to this model.
        """
        if n < 1:
            raise LimnerError(f"cannot draw {n} samples; ask for at least 1")
        options = self._checked_options(options)
        labels = self._labels(n, y)
        if generator is None:
            generator = torch.Generator(self.device)
            generator.manual_seed(seed) if seed is not None else generator.seed()
        mode = self.training
        self.eval()
        try:
            with seeded(generator):
                parts = self._batches(n, labels, generator, batch, options)
        finally:
            self.train(mode)
        return torch.cat(parts).float()

    def _batches(
        self, n: int, y: Tensor | None, generator: torch.Generator, batch: int, options: dict[str, Any]
    ) -> list[Tensor]:
        """The samples in batches; noise that is decoded is drawn for all of them first."""
        parts = [slice(i, min(i + batch, n)) for i in range(0, n, batch)]
        labels = [None if y is None else y[part] for part in parts]
        if self._decodes_noise and isinstance(self, HasPrior) and isinstance(self, Decodes):
            z = self.prior.sample(n, generator, **options)
            return [self.decode(z[part], own) for part, own in zip(parts, labels, strict=True)]
        return [self.draw(p.stop - p.start, own, generator, **options) for p, own in zip(parts, labels, strict=True)]

    def preview(self, batch: Any, n: int, seed: int) -> dict[str, Grid]:
        """What a training shows on its way, as grids by name; the model is in evaluation mode.

        By default ``samples`` of the same noise each time, and ``reconstructions`` where the model has them.

        Args:
            batch: held-out items on the model's device, or training items where nothing is held out; of `batch_type`.
            n: number of samples.
            seed: of the noise.
        """
        few_classes = isinstance(self, Conditional) and self.condition.names and self.condition.size <= COLUMNS
        columns = self.condition.size if isinstance(self, Conditional) and few_classes else None  # a class a column
        grids = {"samples": Grid(self.sample(n, seed=seed), columns)}
        if isinstance(self, Reconstructs) and isinstance(batch, Images):
            grids["reconstructions"] = reconstructions(self, batch, seed)
        return grids

    def _checked_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options that were given; None stands for the default."""
        given, known = {k: v for k, v in options.items() if v is not None}, self.sampling_options
        for key in given:
            if key not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise LimnerError(f"{self.spec.name} has no sampling option {key!r} ({has}); leave {key} out")
        return given

    def _labels(self, n: int, y: Any) -> Tensor | None:
        if not isinstance(self, Conditional):
            if y is not None:
                raise LimnerError(f"{self.spec.name} is not conditional; leave the class out")
            return None
        return (self.condition.default(n) if y is None else self.condition.read(y, n)).to(self.device)


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
