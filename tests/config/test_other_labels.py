"""`train.init` refuses weights that were told other labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limner.config import load
from limner.core.condition import Attributes, Classes, Vectors
from limner.core.errors import LimnerError

HAIR = Attributes({"hair": ["red", "grey"]})
TEXTS = Vectors("nobody", ["a face"], torch.ones(1, 4))


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (TEXTS, HAIR, "it learnt captions, and the data have hair (red, grey)"),
        (HAIR, TEXTS, "it learnt hair (red, grey), and the data have captions"),
        (Classes("abcd"), HAIR, "it learnt class (a, b, c, …), and the data have hair (red, grey)"),
        (HAIR, Attributes({"hair": ["grey", "red"]}), "have hair (grey, red); give a run of the same labels"),
    ],
)
def test_weights_of_other_labels_are_refused_by_name(
    before: Any, now: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_read", lambda path: ({}, {"condition": before.header()}))
    model: Any = SimpleNamespace(condition=now, state_dict=dict)
    with pytest.raises(LimnerError) as caught:
        load.init_weights(model, "run")
    assert said in str(caught.value)
