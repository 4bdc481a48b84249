"""Three ways to write a setting, one meaning."""

from __future__ import annotations

import pytest

from limner.cli.settings import settings
from limner.core.errors import LimnerError


@pytest.mark.parametrize("words", [["train.batch=32"], ["--train.batch=32"], ["--train.batch", "32"]])
def test_three_forms(words: list[str]) -> None:
    assert settings(words) == {"train.batch": 32}


def test_values_are_yaml() -> None:
    assert settings(["size=[48,64]", "data=photos/a=b", "time=null", "device=0,1", "flip=true"]) == {
        "size": [48, 64],
        "data": "photos/a=b",
        "time": None,
        "device": "0,1",
        "flip": True,
    }


@pytest.mark.parametrize("words", [["batch"], ["--batch"], ["=3"], ["--batch", "--size", "3"]])
def test_anything_else_is_refused(words: list[str]) -> None:
    with pytest.raises(LimnerError, match="write key=value"):
        settings(words)
