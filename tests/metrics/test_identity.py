"""Identity kept by a change, and the comparison of two methods on the same pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limner.core.errors import LimnerError
from limner.metrics.identity import difference, identity_kept


def logits(values: Tensor, k: int = 4) -> Tensor:
    return F.one_hot(values, k).float()


def drawn(n: int = 400) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(0)
    return {name: torch.randint(4, (n,), generator=chance) for name in ("eyes", "nose", "hair")}


def changed(before: dict[str, Tensor], share: float, seed: int) -> dict[str, Tensor]:
    """A share of the pictures has another value in every attribute."""
    who = torch.rand(len(before["eyes"]), generator=torch.Generator().manual_seed(seed)) < share
    return {name: torch.where(who, (v + 1) % 4, v) for name, v in before.items()}


def test_the_share_that_stays_and_its_floor() -> None:
    before = drawn()
    after = before | {"hair": (before["hair"] + 1) % 4}
    kept = identity_kept(*({k: logits(v) for k, v in x.items()} for x in (before, after)))
    assert kept.value == pytest.approx(2 / 3)
    assert kept.per_attribute == {"eyes": 1.0, "nose": 1.0, "hair": 0.0}
    assert kept.floor == pytest.approx(0.25, abs=0.02)
    of_two = identity_kept(*({k: logits(v) for k, v in x.items()} for x in (before, after)), ["eyes", "nose"])
    assert of_two.value == of_two.low == of_two.high == 1


def test_the_floor_is_that_of_all_other_pictures() -> None:
    a, b = torch.tensor([0, 0, 1, 2, 1]), torch.tensor([0, 1, 1, 0, 2])
    others = [a[i] == b[j] for i in range(5) for j in range(5) if i != j]
    kept = identity_kept({"eyes": logits(a)}, {"eyes": logits(b)})
    assert kept.floor == pytest.approx(float(torch.stack(others).double().mean()))


def test_a_paired_interval_is_narrow_where_pictures_fail_together() -> None:
    """Both methods fail on the same pictures, and one on a few more: that is certain, though both intervals overlap."""
    before = drawn()
    worse = changed(before, 0.36, 1)
    better = {k: torch.where(torch.arange(400) < 40, before[k], v) for k, v in worse.items()}
    x, y, z = ({k: logits(v) for k, v in values.items()} for values in (before, better, worse))
    a, b = identity_kept(x, y), identity_kept(x, z)
    assert a.low < b.high, "unpaired intervals overlap"
    gap, low, high = difference(a, b)
    assert gap == pytest.approx(a.value - b.value)
    assert 0 < low < gap < high
    assert difference(a, a) == (0, 0, 0)


def test_what_is_refused() -> None:
    x = {k: logits(v) for k, v in drawn(8).items()}
    with pytest.raises(LimnerError, match=r"no attribute 'eye'|attribute 'eye'"):
        identity_kept(x, x, ["eye"])
    with pytest.raises(LimnerError, match="there are 8 and 4"):
        identity_kept(x, {k: v[:4] for k, v in x.items()})
    with pytest.raises(LimnerError, match="same pictures"):
        difference(identity_kept(x, x), identity_kept(*[{k: v[:4] for k, v in x.items()}] * 2))
