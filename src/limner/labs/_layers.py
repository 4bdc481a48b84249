"""Output shape, parameters and multiply-adds of each layer of a net, as the lectures' summary tables print them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from limner.report import Check, Table

_SKIPPED = ("ReLU", "LeakyReLU", "Tanh", "Dropout")  # they change neither shape nor parameters


@dataclass(frozen=True)
class Layer:
    """One layer, measured in a forward pass.

    Attributes:
        kind: name of its class.
        shape: shape of one output, without the batch.
        parameters: number of trained parameters.
        statistics: size of the running statistics (batch norm).
        weights: size of its weight, without the bias.
        positions: output positions, where summary tools count every weight.
        input_positions: input positions, where a transposed convolution really multiplies.
    """

    kind: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    weights: int
    positions: int
    input_positions: int

    @property
    def macs(self) -> int:
        """Multiply-adds if every weight is applied at every output position."""
        return self.weights * self.positions

    @property
    def macs_on_input(self) -> int:
        """The same, with a transposed convolution counted at its input positions."""
        return self.weights * (self.input_positions if "Transpose" in self.kind else self.positions)

    @property
    def printed_macs(self) -> int:
        """The count of the lecture's summary tool: every weight once for each output position, and once more."""
        return self.weights * (self.positions + 1)


@torch.inference_mode()
def layers(net: nn.Module, forward: Callable[[], object]) -> list[Layer]:
    """The layers of `net` in the order in which `forward()` calls them."""
    records: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        records.append(_layer(module, inputs[0], output))

    leaves = [m for m in net.modules() if not list(m.children()) and not isinstance(m, nn.Sequential)]
    hooks = [m.register_forward_hook(record) for m in leaves]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return records


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
        positions=prod(output.shape[2:]),
        input_positions=prod(x.shape[2:]),
    )


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text.

    >>> shape_text((64, 2, 2)), shape_text((128,))
    ('64×2×2', '128')
    """
    return "×".join(map(str, shape))


def checks(measured: Sequence[Layer], printed: Sequence[tuple[str, str, int]], net: str = "") -> list[Check]:
    """Compares the lecture's summary table (kind, output shape, parameters) with the measured layers."""
    rows = [(f.kind, shape_text(f.shape), f.parameters) for f in measured if f.kind not in _SKIPPED]
    pairs = zip_longest(printed, rows, fillvalue=("nothing", "–", 0))
    return [
        Check(f"{net} {i} {row[0]}: output, parameters".strip(), _row_text(row), _row_text(ours), row == ours)
        for i, (row, ours) in enumerate(pairs, 1)
    ]


def _row_text(row: tuple[str, str, int]) -> str:
    return f"{row[1]}, {row[2]:,}" if row[2] else row[1]


def table(measured: Sequence[Layer]) -> Table:
    """The layer table of a page."""
    rows: list[tuple[Any, ...]] = [
        (f"{i} {layer.kind}", shape_text(layer.shape), layer.parameters, layer.macs)
        for i, layer in enumerate(measured, 1)
    ]
    total = ("total", "", sum(layer.parameters for layer in measured), sum(layer.macs for layer in measured))
    return Table(("layer", "output shape", "parameters", "multiply-adds of weights"), [*rows, total])
