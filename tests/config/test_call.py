"""Keyword arguments are checked and converted according to annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from limner.config.call import checked, keywords
from limner.core.errors import LimnerError
from limner.core.progress import Progress, Silent


@checked
def paint(
    name: str | Path,
    *,
    size: Annotated[int, Field(ge=1)] = 512,
    mode: Literal["a", "b"] = "a",
    shares: list[float] | None = None,
    progress: Progress | None = None,
) -> tuple[Any, ...]:
    """Returns its arguments."""
    return name, size, mode, shares, progress


@checked
def open_ended(*, size: int = 1, **options: Any) -> tuple[int, dict[str, Any]]:
    return size, options


def test_written_values_are_converted_and_objects_pass_unchanged():
    progress = Silent()
    assert paint("x", size="64", shares=("1", 2), progress=progress) == ("x", 64, "a", [1.0, 2.0], progress)
    assert paint(Path("x")) == (Path("x"), 512, "a", None, None)
    assert open_ended(size="2", **{"model.tile": "x"}) == (2, {"model.tile": "x"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "abc"}, "size: input should be a valid integer.*got 'abc'"),
        ({"size": 0}, "size: input should be greater than or equal to 1; got 0"),
        ({"mode": "c"}, "mode: input should be 'a' or 'b'; got 'c'"),
        ({"sise": 3}, "unknown setting 'sise'; did you mean 'size'"),
    ],
)
def test_a_wrong_value_is_one_line(values, message):
    with pytest.raises(LimnerError, match=message):
        paint("x", **values)


def test_docstring_and_signature_are_kept():
    assert paint.__doc__ == "Returns its arguments."
    assert list(keywords(paint)) == ["size", "mode", "shares", "progress"]
