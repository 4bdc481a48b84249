"""Known faults are found, and healthy samplers are left in peace: the small part of `benchmarks/doctor.py level1`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import limner.data
from limner.doctor import faults
from limner.doctor.faults import HEALTHY, Pool, diagnosed, examined, findings
from limner.doctor.ground import Ground


@pytest.fixture(scope="module")
def pool() -> Pool:
    whole, train = limner.data.load("mnist-5k"), limner.data.load("mnist-5k", limit=1000)
    images = whole.fetch(range(len(whole)))
    known = {image.numpy().tobytes() for image in train.fetch(range(len(train)))}
    new = torch.tensor([i for i, image in enumerate(images) if image.numpy().tobytes() not in known])
    new = new[torch.randperm(len(new), generator=torch.Generator().manual_seed(0))[:1600]]  # the set is sorted by class
    assert whole.labels is not None
    held = limner.data.load("mnist-5k", split="test", limit=400)
    return Pool(images[new], whole.labels[new], Ground(train, held, most=1000))


@pytest.mark.parametrize(
    ("check", "make"),
    [
        ("collapse", lambda pool: faults.exemplars(pool, 10)),
        ("copying", lambda pool: faults.copies(pool, 0.05)),
        ("blur", lambda pool: faults.blurred(pool, 1.0)),
        ("blur", lambda pool: faults.blurred(pool, 2.0)),
        ("checkerboard", lambda pool: faults.checkered(pool, 0.6)),
        ("noise", lambda pool: faults.noise(pool, 0.5)),
        ("noise_ignored", lambda pool: faults.one_for_each_label(pool)),
        ("low_variety", lambda pool: faults.truncated(pool, 0.2)),
        ("condition_ignored", lambda pool: faults.mislabelled(pool, 0.7)),
        ("oscillation", lambda pool: faults.rotating(pool, 3)),
    ],
)
def test_a_fault_is_found(pool: Pool, check: str, make: Callable[[Pool], faults.Sampler]) -> None:
    found = findings(examined(pool, make(pool), 0, windows=3, copies_too=check == "copying"))
    assert diagnosed(found) == check
    assert found[check].value is not None
    assert found[check].since == (2 if check == "copying" else 1 if check == "oscillation" else 0)


@pytest.mark.parametrize("which", [1, 8])
def test_a_dropped_class_is_named_and_no_other(pool: Pool, which: int) -> None:
    found = findings(examined(pool, faults.without_class(pool, which), which, copies_too=False))
    assert [name for name, finding in found.items() if finding.state == "fail"] == ["dropped_classes"]
    assert f"hardly drawn: {which};" in found["dropped_classes"].sentence


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_sampler_has_no_failure(pool: Pool, seed: int) -> None:
    found = findings(examined(pool, faults.healthy(pool, asked=seed % 2 == 1), seed, copies_too=seed == 0))
    assert diagnosed(found) == HEALTHY
    assert not [f for f in found.values() if f.state in ("fail", "error")]
    states = {"pass"} if seed == 0 else {"pass", "unknown"}
    assert found["copying"].state in states
    assert found["condition_ignored"].state == ("pass" if seed % 2 else "n/a")
