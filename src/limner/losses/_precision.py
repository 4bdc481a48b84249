"""Losses are computed in float32 or float64, because sums of many numbers lose too much in lower precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """The loss, with arguments of lower precision cast to float32; float32 and float64 stay as they are.

    >>> in_float32(lambda x: x.dtype)(torch.zeros(1, dtype=torch.bfloat16))
    torch.float32
    """

    @functools.wraps(loss)
    def cast(*args: P.args, **kwargs: P.kwargs) -> R:
        return loss(*map(_cast, args), **{k: _cast(v) for k, v in kwargs.items()})

    return cast


def _cast(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value
