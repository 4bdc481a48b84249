"""Facts of pix2pix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.config.spec import Spec
from limner.core.batch import Paired
from limner.core.inference import forward_together, translated
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.data import degradations as tasks
from limner.data import load
from limner.data.pairs import PairSet
from limner.losses.adversarial import OBJECTIVES
from limner.losses.translation import l1
from limner.models.pix2pix import Pix2Pix


def pairs(name: str = "digits", task: str = "denoise", **options: object) -> PairSet:
    return PairSet(load(name, size=16, **options), tasks.make(task))


def model(dataset: PairSet, **options: object) -> Pix2Pix:
    tree = {
        "name": "pix2pix",
        "G": {"name": "unet.Generator", "width": 8, "norm": "instance"},
        "D": {"name": "patchgan.PairDiscriminator", "width": 8, "patch": 16, "norm": "instance"},
    }
    torch.manual_seed(0)
    spec = Spec.parse("model", tree | options).resolve(
        shape=dataset.shape, source=dataset.source, pairing=dataset.pairing, classes=0
    )
    output = spec.build()
    output.spec = spec
    return output


@pytest.mark.parametrize(("game", "l1_weight"), [("nonsaturating", 100.0), ("lsgan", 7.0), ("hinge", 0.0)])
def test_the_step_is_the_papers_box(game: str, l1_weight: float):
    """Each loss equals eq. 1 to 4 written out for the same batch and the same dropout."""
    dataset = pairs()
    G = {"name": "unet.Generator", "width": 8, "norm": "instance", "dropout": 0.0}
    net = model(dataset, G=G, adversarial=game, l1_weight=l1_weight)
    losses: dict[str, torch.Tensor] = {}
    logs = net.step(Stream(dataset, 8), lambda group, loss: losses.__setitem__(group, loss.detach()))
    a, b = next(Stream(dataset, 8))
    with torch.no_grad():
        y = net.G(a)
        real, fake = net.D(torch.cat([a, b], 1)), net.D(torch.cat([a, y], 1))
        assert torch.allclose(losses["D"], OBJECTIVES[game].d(real, fake) / 2, rtol=1e-4)
        assert torch.allclose(losses["G"], OBJECTIVES[game].g(fake, None) + l1_weight * l1(y, b), rtol=1e-4)
    assert torch.equal(logs["term/l1"].detach(), l1(net.G(a), b).detach())
    assert torch.allclose(logs["term/gan"].detach(), OBJECTIVES[game].g(fake, None), rtol=1e-4)


def test_no_gradient_of_one_net_reaches_the_other():
    dataset = pairs()
    net = model(dataset)
    reached = {}

    def watched(group: str, loss: torch.Tensor) -> None:
        own = [*net.groups()[group].parameters()]
        other = [*net.groups()["G" if group == "D" else "D"].parameters()]
        gradients = torch.autograd.grad(loss, own + other, allow_unused=True, retain_graph=True)
        reached[group] = (
            all(g is not None for g in gradients[: len(own)]),
            all(g is None for g in gradients[len(own) :]),
        )

    net.step(Stream(dataset, 8), watched)
    assert reached["D"] == (True, True)  # D's loss does not know G
    assert reached["G"][0]  # G's loss runs through D, whose weights `update` leaves alone


def test_l1_falls_and_the_translation_resembles_the_target():
    dataset = pairs(task="deblur")
    net = model(dataset)
    stream, update = Stream(dataset, 16), Updates(net.groups(), {g: Adam(1e-3, (0.5, 0.999)) for g in net.groups()})
    errors = []
    for _ in range(60):
        stream.begin()
        errors.append(float(net.step(stream, update)["term/l1"]))
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])


def test_a_translation_is_a_function_of_the_seed():
    dataset = pairs()
    net = model(dataset, G={"name": "unet.Generator", "width": 8, "norm": "instance"}).eval()
    a, _ = dataset.pairs(range(4))
    assert torch.equal(translated(net, a, seed=1), translated(net, a, seed=1))
    assert not torch.equal(translated(net, a, seed=1), translated(net, a, seed=2))


def test_one_pass_over_both_is_the_same_as_two_without_batch_norm():
    dataset = pairs()
    net = model(dataset)
    a, b = dataset.pairs(range(6))
    x, y = torch.cat([a, b], 1), torch.cat([a, a], 1)
    for whole, single in zip(forward_together(net.D, x, y), (net.D(x), net.D(y)), strict=True):
        torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    batched = nn.Sequential(nn.BatchNorm2d(2))
    assert all(
        torch.equal(p, q) for p, q in zip(forward_together(batched, x, y), (batched(x), batched(y)), strict=True)
    )


def test_the_stream_gives_pairs_that_belong_together():
    dataset = pairs(task="deblur", flip=True, shift=2)
    batch = next(Stream(dataset, 32, seed=5))
    assert isinstance(batch, Paired)
    torch.testing.assert_close(batch.a, tasks.make("deblur")(batch.b, torch.zeros(32, dtype=torch.int64)))


def test_it_cannot_sample_without_a_source():
    net = model(pairs())
    with pytest.raises(Exception, match="limner apply"):
        net.sample(4)
