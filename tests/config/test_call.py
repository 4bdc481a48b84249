"""Facts of arguments that are read by annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from limner.config.call import checked, keywords
from limner.core.errors import LimnerError
from limner.core.progress import Progress, Silent


@checked
def painted(
    name: str | Path,
    *,
    size: Annotated[int, Field(ge=1)] = 512,
    way: Literal["a", "b"] = "a",
    shares: list[float] | None = None,
    progress: Progress | None = None,
) -> tuple[Any, ...]:
    """Gives what it was given."""
    return name, size, way, shares, progress


@checked
def open_ended(*, size: int = 1, **rest: Any) -> tuple[int, dict[str, Any]]:
    return size, rest


def test_what_is_written_is_read_by_its_type_and_objects_pass_through():
    told = Silent()
    assert painted("x", size="64", shares=("1", 2), progress=told) == ("x", 64, "a", [1.0, 2.0], told)
    assert painted(Path("x")) == (Path("x"), 512, "a", None, None)
    assert open_ended(size="2", **{"model.tile": "x"}) == (2, {"model.tile": "x"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "abc"}, "size: input should be a valid integer.*got 'abc'"),
        ({"size": 0}, "size: input should be greater than or equal to 1; got 0"),
        ({"way": "c"}, "way: input should be 'a' or 'b'; got 'c'"),
        ({"sise": 3}, "unknown setting 'sise'; did you mean 'size'"),
    ],
)
def test_what_does_not_fit_is_one_line(given, message):
    with pytest.raises(LimnerError, match=message):
        painted("x", **given)


def test_the_function_still_says_what_it_is():
    assert painted.__doc__ == "Gives what it was given."
    assert list(keywords(painted)) == ["size", "way", "shares", "progress"]
