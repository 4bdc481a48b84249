"""Facts of CoGAN: which layers are shared, whose gradients they get, that batches are no pairs and samples are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from limner import data
from limner.config.spec import Spec
from limner.core.batch import Unpaired
from limner.core.capabilities import DrawsPairs, Generates
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.rng import Noise
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.evaluation.capabilities import sampled_domain
from limner.evaluation.domain_pairs import pixel_pair_scores
from limner.losses.adversarial import nonsaturating
from limner.metrics.agreement import agreement
from limner.models.cogan import CoGAN


def small(own: tuple[int, int] = (1, 1), **more: Any) -> CoGAN:
    G = {"name": "cogan.Generator", "z": 5, "width": 4, "own": own[0]}
    D = {"name": "cogan.Discriminator", "width": 4, "hidden": 16, "own": own[1]}
    spec = Spec.parse("model", {"name": "cogan", "G1": G, "G2": G, "D1": D, "D2": D} | more)
    torch.manual_seed(0)
    model: CoGAN = spec.build(shape=(1, 8, 8), source=(1, 8, 8))
    model.spec = spec
    return model


def domains(**options: Any) -> Any:
    return data.load("domains", a="digits", b="digits", **options)


def test_first_layers_of_g_and_last_layers_of_d_are_shared() -> None:
    """PyTorch-GAN shares the first layers of D, so that nothing ties what both mean by an image."""
    model = small()
    assert model.G1.shared is model.G2.shared
    assert model.D1.shared is model.D2.shared
    z, x = torch.randn(3, 5), torch.rand(3, 1, 8, 8)
    model.eval()
    torch.testing.assert_close(model.G2.own(model.G1.shared(z[:, :, None, None])), model.G2(z))
    torch.testing.assert_close(model.D1.shared(model.D2.own(x)).flatten(), model.D2(x))
    for one, two in ((model.G1.own, model.G2.own), (model.D1.own, model.D2.own)):
        assert not {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}
        assert any((p != q).any() for p, q in zip(one.parameters(), two.parameters(), strict=True)), "drawn apart"


def test_layers_are_copied_moved_and_saved_as_shared_ones() -> None:
    model = small()
    twin = copy.deepcopy(model)
    assert twin.G1.shared is twin.G2.shared
    assert twin.G1.shared is not model.G1.shared
    twin.double()
    assert {p.dtype for p in twin.parameters()} == {torch.float64}
    names = [k for k in model.state_dict() if ".part." in k]
    assert names
    assert all(k.startswith(("G1.", "D1.")) for k in names), "once in a checkpoint"
    storages = [p.data_ptr() for p in model.state_dict().values() if p.numel()]
    assert len(set(storages)) == len(storages)


def test_shared_layers_get_the_sum_of_both_gradients() -> None:
    model = small().double().eval()  # without the noise of batch statistics
    z = torch.randn(6, 5).double()
    a, b = model.decode_pair(z)
    losses = [nonsaturating.g(model.D1(a), None), nonsaturating.g(model.D2(b), None)]
    shared, own = list(model.G1.shared.parameters()), list(model.G1.own.parameters())
    whole = torch.autograd.grad(losses[0] + losses[1], shared, retain_graph=True)
    parts = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    for g, g_a, g_b in zip(whole, *parts, strict=True):
        torch.testing.assert_close(g, g_a + g_b, rtol=0, atol=1e-12)
        assert g_a.abs().max() > 0
        assert g_b.abs().max() > 0
    assert all(g is None for g in torch.autograd.grad(losses[1], own, allow_unused=True)), (
        "G1's own layer is G1's alone"
    )


class Given:
    """A stream of two domains that a test made."""

    batch, position = 4, 0

    def __init__(self) -> None:
        self.stream = Stream(domains(), 4)

    def __next__(self) -> Unpaired:
        self.drawn = next(self.stream)
        return self.drawn

    def randn(self, *size: int) -> torch.Tensor:
        return self.stream.randn(*size)


def test_a_step_descends_on_the_sums_of_two_gans() -> None:
    model, given, losses = small(), Given(), {}
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    pair = model.decode_pair
    model.decode_pair = lambda z: (seen.append(pair(z)), seen[-1])[1]  # type: ignore[method-assign]
    logs = model.step(given, losses.__setitem__)
    assert list(losses) == ["D", "G"]
    assert len(seen) == 2, "fresh noise for G"
    (a, b), ((fake_a, fake_b), (again_a, again_b)) = given.drawn, seen
    D1, D2 = model.D1, model.D2
    expected = nonsaturating.d(D1(a), D1(fake_a)) + nonsaturating.d(D2(b), D2(fake_b))
    torch.testing.assert_close(losses["D"], expected)
    expected = nonsaturating.g(D1(again_a), None) + nonsaturating.g(D2(again_b), None)
    torch.testing.assert_close(losses["G"], expected)
    torch.testing.assert_close(logs["term/D1"] + logs["term/D2"], losses["D"])


def test_batches_are_never_pairs() -> None:
    """Both domains hold the same images here, and a batch has them in two independent orders."""
    stream = Stream(domains(), 64)
    a, b = next(stream)
    assert float((a == b).flatten(1).all(1).float().mean()) < 0.2


def test_one_noise_gives_a_pair() -> None:
    model = small()
    assert isinstance(model, (Generates, DrawsPairs))
    pairs = model.sample(4, seed=1, domain="both")
    a, b = (model.sample(4, seed=1, domain=d) for d in "ab")
    assert pairs.shape == (4, 1, 8, 16)
    assert torch.equal(pairs, torch.cat([a, b], 3))
    assert torch.equal(model.sample(4, seed=1), a)
    assert not torch.equal(a, b)
    z = Noise(3, 2)(0, 5)
    model.eval()
    with torch.inference_mode():
        assert torch.equal(model.at(domain="b").decode(z), model.decode_pair(z)[1])
        assert torch.equal(model.decode(z), model.decode_pair(z)[0])
    with pytest.raises(LimnerError, match="unknown domain 'c'"):
        model.sample(1, domain="c")


def test_previews_show_pairs_in_columns() -> None:
    model = small().eval()
    grids = model.preview(None, 4, 7)
    pairs = model.sample(16, seed=7, domain="both")
    assert grids["details"].columns == 16
    torch.testing.assert_close(grids["details"].images[16 + 5, :1], pairs[5, :, :, 8:])
    torch.testing.assert_close(grids["details"].images[5, :1], pairs[5, :, :, :8])


@pytest.mark.parametrize(("own", "shared"), [((1, 1), 4), ((2, 3), 2), ((3, 4), 0)])
def test_any_number_of_layers_is_shared(own: tuple[int, int], shared: int) -> None:
    """With all of them of its own, these are two GANs: nothing corresponds but the noise."""
    model = small(own)
    both = {id(p) for p in model.G1.shared.parameters()} & {id(p) for p in model.G2.shared.parameters()}
    assert bool(both) == bool(shared)
    update = Updates(model.groups(), {g: Adam() for g in "GD"})
    model.step(Stream(domains(), 8), update)
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)


def test_nets_that_cannot_share_are_refused() -> None:
    with pytest.raises(LimnerError, match="give both the same width, z and own layers"):
        small(G2={"name": "cogan.Generator", "z": 5, "width": 8})
    with pytest.raises(LimnerError, match="has 3 layers, of which 1 to 3 can be its own; got 0"):
        small((0, 1))


def test_agreement_has_a_floor_of_shuffled_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(40, 1, 8, 8, generator=g) < 0.2).float() * 2 - 1
    same = agreement(x, x)
    assert (same.pixels, same.iou, same.correlation) == (1, 1, pytest.approx(1))
    assert same.shuffled.pixels == pytest.approx(0.2**2 + 0.8**2, abs=0.03)
    assert abs(same.shuffled.correlation) < 0.05
    other = agreement(x, x.roll(7, 0))
    assert other.iou == pytest.approx(other.shuffled.iou, abs=0.03)
    x[:2] = -1  # black images have no correlation and no union
    assert 0.94 < agreement(x, x).correlation < 0.96
    one = torch.full((1, 1, 2, 2), -1.0)
    one[..., 0, 0] = 1
    two = one.clone()
    two[..., 0, 1] = 1
    result = agreement(one, two)
    assert (result.pixels, result.iou) == (0.75, 0.5)


def test_pairs_are_scored_where_the_relation_of_the_domains_is_known() -> None:
    model, known = small(), domains(split="test")
    assert pixel_pair_scores(model, known) == {}
    known.name = "digits-negatives"
    drawn = pixel_pair_scores(model, known)
    assert 0 < drawn["pair_pixels"].value < 1
    model.G2.finish = lambda h: -model.G1.finish(h)  # type: ignore[method-assign]
    perfect = pixel_pair_scores(model, known)
    assert perfect["pair_pixels"].value == perfect["pair_iou"].value == 1
    correlation = perfect["pair_correlation"]  # of images of 8 bits, and an untrained G uses few of them
    assert correlation.floor < 0.9 < correlation.value
    assert pixel_pair_scores(small(), data.load("digits")) == {}


def test_samples_are_compared_with_images_of_their_domain() -> None:
    model, both = small(), domains()
    assert sampled_domain(model, both) is both.a
    assert sampled_domain(model.at(domain="b"), both) is both.b
    assert sampled_domain(model, both.a) is both.a
    assert sampled_domain(torch.nn.Linear(1, 1), both) is both
