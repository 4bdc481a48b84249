"""What each layer of a net gives and costs, measured by running it, as the lectures' summary tables print it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from limner.report import Check, Table

_SILENT = ("ReLU", "LeakyReLU", "Tanh", "Dropout")  # they change neither the shape nor the count


@dataclass(frozen=True)
class Layer:
    """One layer as it ran.

    Attributes:
        kind: its class.
        shape: of one output, without the batch.
        parameters: numbers that are trained.
        statistics: numbers that are only tracked (batch norm).
        weights: numbers of its weight, the bias left out.
        places: output places that every weight is applied at, by the rule of the summary tools.
        sources: input places, the true count for a transposed convolution.
    """

    kind: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    weights: int
    places: int
    sources: int

    @property
    def macs(self) -> int:
        """Multiply-adds of the weight if each is applied at every output place."""
        return self.weights * self.places

    @property
    def macs_on_input(self) -> int:
        """The same, with a transposed convolution counted on its input, where it really multiplies."""
        return self.weights * (self.sources if "Transpose" in self.kind else self.places)

    @property
    def printed_macs(self) -> int:
        """What the lecture's summary tool prints: every weight once for each place, and once more."""
        return self.weights * (self.places + 1)


@torch.inference_mode()
def layers(net: nn.Module, work: Callable[[], object]) -> list[Layer]:
    """The layers of `net` in the order in which `work()` runs them."""
    seen: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(_layer(module, inputs[0], output))

    leaves = [m for m in net.modules() if not list(m.children()) and not isinstance(m, nn.Sequential)]
    hooks = [m.register_forward_hook(note) for m in leaves]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _layer(module: nn.Module, x: Tensor, output: Tensor) -> Layer:
    weight = getattr(module, "weight", None)
    multiplies = isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) and isinstance(weight, Tensor)
    statistics = [b for n, b in module.named_buffers() if not n.endswith("num_batches_tracked")]
    return Layer(
        kind=type(module).__name__.removeprefix("Same"),
        shape=tuple(output.shape[1:]),
        parameters=sum(p.numel() for p in module.parameters()),
        statistics=sum(b.numel() for b in statistics),
        weights=weight.numel() if multiplies and isinstance(weight, Tensor) else 0,
        places=prod(output.shape[2:]),
        sources=prod(x.shape[2:]),
    )


def times(shape: Sequence[int]) -> str:
    """A shape as people write it.

    >>> times((64, 2, 2)), times((128,))
    ('64×2×2', '128')
    """
    return "×".join(map(str, shape))


def checks(found: Sequence[Layer], printed: Sequence[tuple[str, str, int]], net: str = "") -> list[Check]:
    """The lecture's summary table, layer by layer: kind, output shape and parameters, beside the layers that ran."""
    ours = [(f.kind, times(f.shape), f.parameters) for f in found if f.kind not in _SILENT]
    pairs = zip_longest(printed, ours, fillvalue=("nothing", "–", 0))
    return [
        Check(f"{net} {i} {theirs[0]}: output, parameters".strip(), _line(theirs), _line(own), theirs == own)
        for i, (theirs, own) in enumerate(pairs, 1)
    ]


def _line(row: tuple[str, str, int]) -> str:
    return f"{row[1]}, {row[2]:,}" if row[2] else row[1]


def table(found: Sequence[Layer]) -> Table:
    """The layer table of a page."""
    rows: list[tuple[Any, ...]] = [
        (f"{i} {layer.kind}", times(layer.shape), layer.parameters, layer.macs) for i, layer in enumerate(found, 1)
    ]
    total = ("total", "", sum(layer.parameters for layer in found), sum(layer.macs for layer in found))
    return Table(("layer", "output shape", "parameters", "multiply-adds of weights"), [*rows, total])
