"""One of several captions is drawn by the image's key, and a wrong label is never right by chance."""

from __future__ import annotations

import pytest
import torch

from limner.core.labelling import Captions, Mismatches
from limner.core.rng import keys


def drawn_keys(n: int, epoch: int = 0) -> torch.Tensor:
    return keys(0, torch.full((n,), epoch), torch.arange(n))


def test_every_caption_of_an_image_is_drawn_equally_often_and_no_other() -> None:
    captions = Captions(torch.arange(5.0)[:, None], [[0], [1, 2, 3], [4, 0]])
    ids, n = torch.tensor([0, 1, 2]).repeat(3000), 9000
    y = captions.draw(ids, drawn_keys(n)).squeeze(1)
    assert set(y[ids == 0].tolist()) == {0}
    for image, texts in ((1, [1, 2, 3]), (2, [4, 0])):
        shares = [float((y[ids == image] == t).float().mean()) for t in texts]
        assert sum(shares) == pytest.approx(1)
        assert shares == pytest.approx([1 / len(texts)] * len(texts), abs=0.04)
    assert captions.first.squeeze(1).tolist() == [0, 1, 4]


def test_a_caption_depends_on_seed_epoch_and_image_alone() -> None:
    captions = Captions(torch.randn(8, 3), [[0, 1, 2, 3], [4, 5, 6, 7]] * 20)
    k = drawn_keys(40)
    whole, ids = captions.draw(torch.arange(40), k), torch.arange(40)
    assert torch.equal(captions.draw(ids[7:12], k[7:12]), whole[7:12])
    assert not torch.equal(captions.draw(ids, drawn_keys(40, epoch=1)), whole)


def test_wrong_labels_are_those_of_all_other_groups_equally_often() -> None:
    groups = torch.tensor([2, 0, 2, 5, 0, 2, 2, 2])
    wrong = Mismatches(groups, torch.arange(8))
    ids = torch.arange(8).repeat(2000)
    others = wrong.draw(ids, drawn_keys(len(ids)))
    assert bool((groups[others] != groups[ids]).all())
    for image in range(8):
        allowed = (groups != groups[image]).nonzero().flatten()
        shares = [float((others[ids == image] == j).float().mean()) for j in allowed]
        assert sum(shares) == pytest.approx(1)
        assert shares == pytest.approx([1 / len(allowed)] * len(allowed), abs=0.05)


def test_wrong_captions_are_those_of_other_images() -> None:
    captions = Captions(torch.arange(4.0)[:, None], [[0, 1], [2], [3]])
    wrong = Mismatches(torch.tensor([0, 1, 1]), captions)
    ids = torch.arange(3).repeat(200)
    y = wrong.draw(ids, drawn_keys(600)).squeeze(1)
    assert set(y[ids == 0].tolist()) == {2, 3}
    assert set(y[ids != 0].tolist()) == {0, 1}, "captions of the image drawn, all of them"


def test_without_another_label_none_is_wrong() -> None:
    with pytest.raises(ValueError, match="the same label"):
        Mismatches(torch.zeros(3, dtype=torch.int64), torch.zeros(3))
