"""Whether a model's description fits its weights, before anything of the described size is built.

A file of a few bytes can describe a net of a million blocks or channels. So the net is built once without values, and
the construction ends as soon as it asks for more modules, tensors or numbers than the file can fill. Then names and
shapes are compared. Only a net that fits is built, and it is as large as its file.

The meta device would do the same, but many of its kernels are written in Python, and importing them takes a second.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as registry
from torch.overrides import TorchFunctionMode

from limner.config.spec import Spec
from limner.core.errors import LimnerError

_MODULES, _TENSORS = 16, 8  # for each tensor of the file; the largest shipped recipe has 3 modules for each
_SPARE = 1_000  # modules and tensors that a small net may have beside
_IMAGE = 1 << 28  # numbers of an image
_FROZEN = 1 << 27  # numbers that a net may hold beside its file's, such as those of a VGG-19


def check_fits(spec: Spec, weights: Mapping[str, Tensor]) -> None:
    """Compares a description with the weights it is for, at a cost that the weights bound.

    Args:
        spec: the complete constructor call of a model.
        weights: the tensors of its file.

    Raises:
        LimnerError: the call is not valid, or describes another model.
    """
    _check_shapes(spec)
    numbers = sum(t.numel() for t in weights.values())
    budget = _Budget(spec.name, len(weights), numbers)
    with _counted(budget), _WithoutValues(budget):
        model = spec.build()
    shapes = {k: getattr(v, "shape", None) for k, v in model.state_dict().items()}
    if shapes.keys() != weights.keys():
        names = sorted(shapes.keys() ^ weights.keys())
        raise LimnerError(f"these weights do not fit {spec.name}: names such as {names[0]} differ; restore the file")
    for name, shape in shapes.items():
        if shape is not None and shape != weights[name].shape:
            raise LimnerError(
                f"these weights do not fit {spec.name}: {name} is {_text(weights[name].shape)} instead of"
                f" {_text(shape)}; restore the file"
            )


def _check_shapes(spec: Spec) -> None:
    """Refuses images that nobody has, on which no tensor of a convolutional net depends."""
    for name, value in spec.kwargs.items():
        if isinstance(value, Spec):
            _check_shapes(value)
        elif name == "shape" and value is not None and not (min(value) > 0 and prod(value) <= _IMAGE):
            raise LimnerError(f"{spec.name}: images of {_text(value)} numbers cannot be made; restore the file")


def _text(shape: Any) -> str:
    return "×".join(map(str, shape)) or "a number"


class _Budget:
    """What the construction of a model may still hold."""

    def __init__(self, name: str, tensors: int, numbers: int) -> None:
        self.name = name
        self.modules, self.tensors = _MODULES * tensors + _SPARE, _TENSORS * tensors + _SPARE
        self.numbers = _TENSORS * numbers + _FROZEN

    def check(self, numbers: int = 0) -> None:
        """Raises a `LimnerError` if it is spent, or does not suffice for a tensor of so many numbers."""
        if min(self.modules, self.tensors, self.numbers - numbers) < 0:
            raise LimnerError(f"these weights do not fit {self.name}: it is described as far larger; restore the file")


@contextmanager
def _counted(budget: _Budget) -> Iterator[None]:
    """Counts the modules and tensors that modules get in this thread."""
    thread = threading.get_ident()

    def count_tensor(module: object, key: str, tensor: Tensor | None) -> None:
        if threading.get_ident() == thread and tensor is not None:
            budget.tensors -= 1
            budget.numbers -= tensor.numel()
            budget.check()

    def count_module(module: object, key: str, part: object) -> None:
        if threading.get_ident() == thread:
            budget.modules -= 1
            budget.check()

    handles = [
        registry.register_module_parameter_registration_hook(count_tensor),
        registry.register_module_buffer_registration_hook(count_tensor),
        registry.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_FILLED = (torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)
_SMALL = 1 << 12  # numbers that are computed all the same; a constructor may look at them


class _WithoutValues(TorchFunctionMode):
    """Refuses tensors that are larger than a budget, and leaves the initial values of the others out.

    The memory of an empty tensor is not touched, so it costs nothing.
    """

    def __init__(self, budget: _Budget) -> None:
        super().__init__()
        self.budget = budget

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.empty or func in _FILLED:
            size = args[:1] if func is torch.full else args
            options = {k: v for k, v in kwargs.items() if k not in ("generator", "fill_value")}
            numbers = torch.empty(*size, **options | {"device": "meta"}).numel()
            self.budget.check(numbers)
            if numbers > _SMALL:
                return torch.empty(*size, **options)
        elif func in (torch.arange, torch.eye, torch.linspace):
            largest = max((abs(a) for a in args if isinstance(a, int)), default=0)
            self.budget.check(largest**2 if func is torch.eye else largest)
        return func(*args, **kwargs)
