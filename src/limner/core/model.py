"""What every model offers: parameter groups, a training step, samples.

A model is an `nn.Module` that offers these three things. Anything else that a model can do is a capability
(`limner.core.capabilities`), which callers test with `isinstance`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, Self, get_type_hints

import torch
from torch import Tensor, nn

from limner.core import sampling_options
from limner.core.batch import Images
from limner.core.capabilities import Conditional, Generates, Reconstructs
from limner.core.errors import LimnerError
from limner.core.interpolation import lerp
from limner.core.previews import COLUMNS, Grid, reconstructions
from limner.core.rng import Noise, seed_from, seeded

Logs = dict[str, Tensor]
"""Scalars that one step logs; they stay on the device: ``loss/*``, ``logit/*``, ``term/*``."""


class Data(Protocol):
    """Where a training step takes its batches and its noise from; `limner.core.stream.Stream` is one.

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
        """Standard normal noise of shape `size` for this rank, a function of (seed, position)."""
        ...

    def rand(self, *size: int) -> Tensor:
        """Uniform noise in [0,1) of shape `size` for this rank, a function of (seed, position)."""
        ...

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        """The value `schedule(position)` as a tensor (). A step recorded as a CUDA graph reads it anew each time."""
        ...


class Update(Protocol):
    """One optimiser step on one parameter group; `limner.core.update.Updates` is one.

    It computes the gradients of that group alone, averages them over ranks, clips them and calls the optimiser.
    Optimisers with a line search (L-BFGS) compute the loss several times, so they need it as a function.
    """

    def __call__(self, group: str, loss: Tensor | Callable[[], Tensor]) -> None: ...


class Description(Protocol):
    """The constructor call that built a model; `limner.config.spec.Spec` is one."""

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
        spec: the constructor call, with everything that the data decided. A checkpoint is this call plus the weights.
        ema_groups: names of the groups whose weights are averaged for sampling; None means all.
        batch_type: the type of batch that `step` takes, one of `limner.core.batch.KINDS`.
        family: the kind of generative model, for reports and comparisons; "" where it is none of the usual ones.
        preview_facts: what a report says about the model's previews.
        usage: the command that applies an image-to-image model, for error messages.
        static: whether all steps of one `phase` run the same operations, so that one of them can be recorded as a
            CUDA graph. Such a step branches on no changing number outside `phase`, and Python counts nothing in it.
        rules: the version of the rules of training, which a run keeps from its start to its end. Rule 2 counts the
            moving average in images seen, and takes penalties at images as they are before a transform.
        options: sampling options that replace the model's defaults; `at` sets them.
    """

    spec: Description
    ema_groups: tuple[str, ...] | None = None
    batch_type: type = Images
    family: str = ""
    preview_facts: Mapping[str, str] = MappingProxyType({})
    usage: str = "limner apply RUN IN OUT"
    static: bool = False
    rules: int = 2
    options: Mapping[str, Any] = MappingProxyType({})

    def groups(self) -> dict[str, nn.Module]:
        """The modules that are optimised, by group name."""
        raise NotImplementedError

    def step(self, data: Data, update: Update) -> Logs:
        """Runs one iteration of the paper's algorithm box and returns its logs. It never waits for the device."""
        raise NotImplementedError

    def warm_up(self, data: Data) -> None:
        """Prepares the weights with the first batch, once, before the first step; most models need nothing.

        Training calls it on every rank, before it copies the weights for their average, and goes back to the position
        of the first batch.
        """

    def phase(self, data: Data) -> Hashable | None:
        """A key for what the coming step of a `static` model does; None if no other step is like it.

        Steps with equal keys run the same operations on new batches, new noise and new ``data.scalar`` values.
        """
        return ()

    def draw(self, n: int, y: Tensor | None, noise: Noise, **options: Any) -> Tensor:
        """Draws `n` samples (n,C,H,W) in [-1,1]; the model is in evaluation mode.

        A model with a prior and a decoder does not need this method, because `sample` decodes noise from the prior. A
        model that has it declares its sampling options as keyword-only arguments with defaults.

        Args:
            n: number of images.
            y: labels (n,…) of a conditional model, as its `condition` encodes them, else None.
            noise: the source of all noise, ``noise(step, *shape) -> (n, *shape)``.
            **options: the sampling options that the model declares.

        Raises:
            LimnerError: the model translates images and cannot draw any.
        """
        raise LimnerError(f"{self.spec.name} makes images of images; use {self.usage}")

    @property
    def title(self) -> str:
        """The model's name in the catalogue, or that of its class if it was built without a `spec`."""
        return self.spec.name if hasattr(self, "spec") else type(self).__name__

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def check_batch(self, n: int) -> None:
        """Calls `check_batch` of every sub-module that has one.

        Args:
            n: images per batch and device.

        Raises:
            ValueError: a sub-module cannot work on batches of n images; the message says what to do.
        """
        for module in self.modules():
            check: Callable[[int], None] | None = getattr(module, "check_batch", None)
            if module is not self and check is not None:
                check(n)

    @property
    def sampling_options(self) -> dict[str, inspect.Parameter]:
        """The options that `sample` takes for this model, by name, with their defaults."""
        decoder = self._noise_decoder
        declaration = decoder.prior.sample if decoder else self.sampling_declaration()
        return {} if declaration is None else sampling_options.declared(declaration)

    @classmethod
    def sampling_declaration(cls) -> Callable[..., Any] | None:
        """What declares the sampling options as keyword-only parameters with defaults; None where there are none.

        This is `draw`, or `sample` of the type that the class body annotates as `prior`. A model whose options are the
        fields of a dataclass returns that class.
        """
        if cls.draw is not GenerativeModel.draw:
            return cls.draw
        prior = get_type_hints(cls).get("prior")
        return None if prior is None else getattr(prior, "sample", None)

    @property
    def _noise_decoder(self) -> Generates | None:
        """This model if its samples are decoded noise; None if it has its own `draw`."""
        return self if type(self).draw is GenerativeModel.draw and isinstance(self, Generates) else None

    def at(self, **options: Any) -> Self:
        """This model with other values of its sampling options, as in ``G.at(steps=8).sample(16)``.

        Whatever the model does with the options then uses these values; the weights are shared.

        Raises:
            LimnerError: the model has no such option.
        """
        model = copy.copy(self)
        model.options = {**self.options, **self.checked_options(options)}
        return model

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        y: Any = None,
        to: Any = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        batch: int = 256,
        columns: int | None = None,
        **options: Any,
    ) -> Tensor:
        """Draws samples in evaluation mode, one batch at a time, and restores the mode.

        A model that decodes noise draws the noise of all n samples first, and one with its own `draw` gets noise that
        depends on seed and image. So `batch` changes memory and speed, and the samples agree up to rounding, because
        kernels may depend on the batch size. This does not hold for models that are random in evaluation mode (live
        dropout).

        Args:
            n: number of images.
            y: for conditional models: one label for all images, or n labels; by default all classes in turn, or
                labels of the data. With `columns` also one label for each column.
            to: with `y` and `columns`, the label of the last column: those between `y` and it lie on a line, in even
                steps. Images between two captions are an example.
            seed: seeds a new generator on the model's device.
            generator: used instead of `seed`.
            batch: images per forward pass. Lower it if memory is short.
            columns: images of a row, which share their noise, so that only their labels tell them apart; each image
                has noise of its own by default.
            **options: further options of this model; `sampling_options` lists them.

        Returns:
            (n,C,H,W) float32 in [-1,1].

        Raises:
            LimnerError: n, y or an option is not valid for this model.
        """
        if n < 1:
            raise LimnerError(f"cannot draw {n} samples; ask for at least 1")
        if seed is not None and not -(1 << 63) <= seed < 1 << 63:
            raise LimnerError(f"seed: {seed} has more than 64 bits; write a smaller number")
        if batch < 1:
            raise LimnerError(f"batch: {batch} images at a time is none; write 1 or more")
        if columns is not None and columns < 1:
            raise LimnerError(f"columns: a row of {columns} images is none; write 1 or more")
        options = {**self.options, **self.checked_options(options, ("y", "to", "seed", "batch", "columns"))}
        labels = self._labels(n, y, columns) if to is None else self._labels_between(n, y, to, columns)
        if generator is None:
            generator = torch.Generator(self.device)
            generator.manual_seed(seed) if seed is not None else generator.seed()
        mode = self.training
        self.eval()
        try:
            with seeded(generator):
                return torch.cat(list(self._batches(n, labels, generator, batch, columns or 1, options))).float()
        finally:
            self.train(mode)

    def _batches(
        self,
        n: int,
        labels: Tensor | None,
        generator: torch.Generator,
        batch: int,
        columns: int,
        options: dict[str, Any],
    ) -> Iterator[Tensor]:
        decoder = self._noise_decoder
        z = decoder.prior.sample(-(-n // columns), generator, **options) if decoder else None
        seed = 0 if decoder else seed_from(generator)
        for i in range(0, n, batch):
            y = None if labels is None else labels[i : i + batch]
            size = min(batch, n - i)
            if decoder is not None and z is not None:
                rows = torch.arange(i, i + size, device=z.device) // columns
                yield decoder.decode(z[rows], y)
            else:
                yield self.draw(size, y, Noise(seed, size, i, generator.device, columns), **options)

    def preview(self, batch: Any, n: int, seed: int) -> dict[str, Grid]:
        """Image grids, by name, that show the progress of a training; the model is in evaluation mode.

        The default shows ``samples`` of the same noise each time, and ``reconstructions`` if the model can make them.

        Args:
            batch: held-out items, or training items if nothing is held out; of `batch_type`, on the model's device.
            n: number of samples.
            seed: of the noise.
        """
        grids = {"samples": self.sample_grid(n, seed)}
        if isinstance(self, Reconstructs) and isinstance(batch, Images):
            grids["reconstructions"] = reconstructions(self, batch, seed)
        return grids

    def sample_grid(self, n: int, seed: int) -> Grid:
        """Samples of a seed; of a conditional model a sheet, in which rows share noise and columns have a heading."""
        columns = self.sheet_columns
        if columns is None or not isinstance(self, Conditional):
            return Grid(self.sample(n, seed=seed))
        headings = self.condition.name(self.condition.default(columns))
        return Grid(self.sample(n, seed=seed, columns=columns), columns, headings)

    @property
    def sheet_columns(self) -> int | None:
        """Columns of a sheet of samples, each with a label of its own; None where labels are none or too many."""
        if not isinstance(self, Conditional):
            return None
        if self.condition.names is None:
            return COLUMNS // 2
        return self.condition.size if 1 < self.condition.size <= COLUMNS else None

    def checked_options(self, options: Mapping[str, Any], settings: Iterable[str] = ()) -> dict[str, Any]:
        """The sampling options whose value is not None, which stands for the default.

        Args:
            options: values by name.
            settings: further words that the caller takes, for the nearest match to a wrong one.

        Raises:
            LimnerError: the model has no such option, or a value has the wrong type or is out of range.
        """
        return sampling_options.checked(self.title, self.sampling_options, options, settings)

    def _labels(self, n: int, y: Any, columns: int | None) -> Tensor | None:
        if not isinstance(self, Conditional):
            if y is not None:
                raise LimnerError(f"{self.spec.name} is not conditional; leave the class out")
            return None
        width = columns or n
        listed = isinstance(y, (list, tuple)) or (isinstance(y, Tensor) and y.dim() > 0)
        is_row = y is None or (listed and len(y) == width)
        labels = self.condition.default(width) if y is None else self.condition.read(y, width if is_row else n)
        return labels[torch.arange(n) % len(labels)].to(self.device)

    def _labels_between(self, n: int, y: Any, to: Any, columns: int | None) -> Tensor:
        """Label vectors (n,size) of rows whose columns go from one label to another."""
        if not isinstance(self, Conditional):
            raise LimnerError(f"{self.spec.name} is not conditional; leave the labels out")
        if y is None or columns is None or columns < 2:
            raise LimnerError("to needs the label that a row begins with, y, and 2 columns or more")
        ends = (self.condition.encode(self.condition.read(label, 1)).to(self.device) for label in (y, to))
        first, last = (end.expand(columns, -1) for end in ends)
        row = lerp(first, last, torch.linspace(0, 1, columns, device=self.device))
        return row[torch.arange(n) % columns]


def parameters(model: GenerativeModel) -> dict[str, dict[str, int]]:
    """Numbers of parameters per group.

    Returns:
        ``{group: {"total": .., "trainable": .., "buffers": ..}}``. Batch-norm statistics count as buffers, the step
        counters of batch norm do not.
    """
    return {name: _counts(module) for name, module in model.groups().items()}


def _counts(module: nn.Module) -> dict[str, int]:
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
