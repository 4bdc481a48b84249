"""Facts of StyleGAN2: truncation, mixing, the path length of a linear G, lazy R1, the mean of w, labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.capabilities import Conditional, Generates, HasCritic, HasStyles
from limner.core.errors import LimnerError
from limner.losses.penalties import path_lengths, r1
from limner.models.stylegan2 import StyleGAN2
from limner.nets.augment import Transform

SMALL = {"z": 6, "w": 5, "width": 4, "widest": 8, "mapping": 2}


def build(labels: int = 0, generator: str = "stylegan2", **settings: Any) -> StyleGAN2:
    """A small model whose mapping is away from zero styles and whose noise acts."""
    conditional = {"conditional": True} if labels else {}
    tree = {
        "name": "stylegan2",
        "G": {"name": f"{generator}.Generator", **SMALL, **conditional},
        "D": {"name": "stylegan2.Discriminator", "width": 4, "widest": 8, **conditional},
        **settings,
    }
    spec = Spec.parse("model", tree).resolve(shape=(1, 16, 16), classes=labels, condition=None)
    torch.manual_seed(0)
    model: StyleGAN2 = spec.build()
    model.spec = spec
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.G.named_parameters():
            if "strength" in name:
                p += 0.5
            if name.endswith("bias"):
                p += 0.1 * torch.randn(p.shape, generator=g)
        model.G.w_mean.copy_(torch.randn(SMALL["w"], generator=g))
    return model


class Repeated:
    """A stream that gives one batch again and again, with new noise."""

    def __init__(self, y: Tensor | None = None, n: int = 4) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.images = Images(torch.rand(n, 1, 16, 16, generator=self.generator) * 2 - 1, y)
        self.batch, self.position = n, 0

    def __next__(self) -> Images:
        self.position += self.batch
        return self.images

    def randn(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(size, generator=self.generator)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position))


def test_psi_of_0_gives_one_image_and_psi_of_1_changes_nothing() -> None:
    model = build()
    plain = model.sample(6, seed=0)
    assert torch.equal(model.sample(6, seed=0, psi=1.0), plain)
    one = model.sample(6, seed=0, psi=0.0, noise_maps="fixed")
    torch.testing.assert_close(one, one[:1].expand_as(one))  # kernels may round the images of a batch differently
    with torch.no_grad():
        torch.testing.assert_close(one[:1], model.synthesise(model.mean_style()))
    assert not torch.equal(plain[0], plain[1])
    assert torch.equal(model.at(psi=0.0).decode(torch.randn(3, 6)), one[:3]), "decoding is truncated likewise"


@pytest.mark.parametrize("psi", [0.5, -1.0])
def test_truncation_is_linear_in_w_and_ends_at_its_layer(psi: float) -> None:
    model = build()
    ws, mean = model.styles(torch.randn(3, 6)), model.mean_style()
    torch.testing.assert_close(model.truncate(ws, None, psi), mean + psi * (ws - mean))
    coarse = model.truncate(ws, None, psi, layers=2)
    torch.testing.assert_close(coarse[:, :2], (mean + psi * (ws - mean))[:, :2])
    assert torch.equal(coarse[:, 2:], ws[:, 2:])
    z = torch.randn(3, 6)
    torch.testing.assert_close(
        model.at(psi=psi, psi_layers=2).truncated_styles(z), model.truncate(model.styles(z), None, psi, layers=2)
    )


def test_a_point_has_the_fixed_noise_or_none() -> None:
    model = build()
    z, fixed = torch.randn(3, 6), model.G.noise.fixed
    ws = model.styles(z)
    assert torch.equal(model.decode(z), model.synthesise(ws, fixed))
    without = model.at(noise_maps="none")
    assert torch.equal(without.decode(z), model.synthesise(ws, torch.zeros_like(fixed)))
    assert not torch.equal(without.decode(z), model.decode(z))


def test_samples_are_functions_of_seed_and_image() -> None:
    model = build()
    whole = model.sample(5, seed=2)
    torch.testing.assert_close(model.sample(5, seed=2, batch=2), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.sample(3, seed=2), whole[:3], rtol=0, atol=1e-5)
    off, fixed = (model.sample(5, seed=2, noise_maps=kind) for kind in ("none", "fixed"))
    assert not torch.equal(off, fixed)
    assert not torch.equal(whole, fixed)
    with pytest.raises(LimnerError, match="psi must be a number"):
        model.sample(1, psi=7)


def test_mixed_styles_are_those_of_one_z_up_to_a_layer_and_then_of_another() -> None:
    model, data = build(mixing=1.0), Repeated(n=200)
    with torch.no_grad():
        ws = model.draw_styles(200, None, data)
        cuts = []
        for image in ws:
            changes = [k for k in range(1, len(image)) if not torch.equal(image[k], image[k - 1])]
            assert len(changes) == 1
            cuts.append(changes[0])
        assert set(cuts) == set(range(1, model.G.L)), "every layer but the first can be the first of the other z"
        model.mixing = 0.0
        ws = model.draw_styles(200, None, data)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))


def test_the_path_length_of_a_linear_generator() -> None:
    """x = Σ_l A_l w_l gives J_wᵀ y = A_lᵀ y for each layer, and a length of √(mean_l ‖A_lᵀ y‖² / HW)."""
    A = torch.randn(3, 2 * 4 * 4, 5, dtype=torch.float64)
    ws = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    lengths = path_lengths(torch.einsum("lpi,bli->bp", A, ws).view(2, 2, 4, 4), ws, y)
    expected = (torch.einsum("lpi,bp->bli", A, y.flatten(1)).square().sum(2).mean(1) / 16).sqrt()
    torch.testing.assert_close(lengths, expected, rtol=1e-12, atol=0)


def test_the_path_length_penalty_is_the_distance_from_its_moving_mean() -> None:
    """The first a is the mean length; a is the mean of all lengths with weights that fall by 1 % each time."""
    model = build(mixing=0.0)
    data, again = Repeated(), Repeated()
    penalty = model.path_penalty(3, None, data)
    ws = model.draw_styles(3, None, again)
    images = model.generate(ws, again)
    lengths = path_lengths(images, ws, again.randn(*images.shape)).detach()
    torch.testing.assert_close(model.path_mean, lengths.mean())
    torch.testing.assert_close(penalty.detach(), (lengths - model.path_mean).square().mean())
    gradients = torch.autograd.grad(penalty, list(model.G.parameters()), allow_unused=True)
    assert sum(float(g.abs().max()) > 0 for g in gradients if g is not None) > 20


def test_the_moving_mean_of_path_lengths_has_no_bias_towards_its_start() -> None:
    model, data = build(mixing=0.0), Repeated()
    seen = [lengths_of(model, data) for _ in range(3)]
    weights = torch.tensor([0.99**2, 0.99, 1.0])
    torch.testing.assert_close(model.path_mean, (weights * torch.stack(seen)).sum() / weights.sum())


def lengths_of(model: StyleGAN2, data: Repeated) -> Tensor:
    """The mean length that a penalty saw."""
    state = data.generator.get_state()
    ws = model.draw_styles(3, None, data)
    images = model.generate(ws, data)
    mean = path_lengths(images, ws, data.randn(*images.shape)).detach().mean()
    data.generator.set_state(state)
    model.path_penalty(3, None, data)
    return mean


def steps(model: StyleGAN2, data: Repeated, n: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Losses and logs of steps without descent."""
    losses, logs = [], []
    for _ in range(n):
        given: dict[str, Tensor] = {}
        logs.append({k: v.detach() for k, v in model.step(data, given.__setitem__).items()})
        losses.append({k: v.detach() for k, v in given.items()})
    return losses, logs


def test_lazy_r1_is_eager_r1_on_average() -> None:
    """On one batch and a fixed D, the mean over `r1_every` steps is γ/2 E‖∇D‖², to which γ is added as its weight."""
    model = build(gamma=3.0, r1_every=4, path_weight=0.0)
    data = Repeated()
    losses, logs = steps(model, data, 8)
    eager = r1(lambda x: model.D(x), data.images.x).detach()
    terms = [entry["term/r1"] for entry in logs]
    assert [bool(t) for t in terms] == [True, False, False, False] * 2
    torch.testing.assert_close(torch.stack(terms).mean(), eager)
    penalties = torch.stack([a["D"] - b["loss/D"] for a, b in zip(losses, logs, strict=True)])
    torch.testing.assert_close(penalties.mean(), 3.0 * eager, rtol=1e-5, atol=1e-6)


class Halved(Transform):
    """A transform that halves images, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.observed: list[int] = []

    def transform(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x / 2

    def observe(self, sign: Tensor, images: int) -> None:
        self.observed.append(images)


def test_d_sees_real_and_generated_images_through_the_transform() -> None:
    """And R1 is the slope of D at the images before it: a transform that halves images quarters it."""
    model = build(r1_every=1, path_weight=0.0)
    data = Repeated()
    halved, transform = r1(lambda x: model.D(x), data.images.x / 2).detach() / 4, Halved()
    model.transform = transform
    _, logs = steps(model, data, 1)
    assert transform.seen == [4, 4, 4, 4], "reals, fakes, R1, fakes for G"
    assert transform.observed == [4]
    torch.testing.assert_close(logs[0]["term/r1"], halved)


def test_the_losses_are_the_papers() -> None:
    model = build(gamma=1.0, path_weight=2.0, path_every=2)
    losses, logs = steps(model, Repeated(), 2)
    for loss, entry in zip(losses, logs, strict=True):
        torch.testing.assert_close(loss["G"] - entry["loss/G"], 2.0 * entry["term/path"], rtol=1e-4, atol=1e-5)
    assert float(logs[0]["term/path"]) > 0
    assert float(logs[1]["term/path"]) == 0


def test_the_mean_of_w_is_a_moving_average() -> None:
    """k steps towards a constant mean m leave w̄ = m + 0.995^k (w̄₀ − m)."""
    model = build()
    before, ws = model.G.w_mean.clone(), torch.randn(4, 1, 5).expand(-1, model.G.L, -1)
    for _ in range(7):
        model.follow_mean(ws)
    mean = ws[:, 0].mean(0)
    torch.testing.assert_close(model.G.w_mean, mean + 0.995**7 * (before - mean))
    data = Repeated()
    w_mean = model.G.w_mean.clone()
    steps(model, data, 1)
    assert not torch.equal(model.G.w_mean, w_mean), "a step moves it"


def test_labels_choose_the_image_and_truncation_ends_at_the_mean_of_the_label() -> None:
    model = build(labels=3)
    assert isinstance(model, Conditional)
    z = torch.randn(1, 6).expand(3, -1)
    images = model.decode(z, torch.tensor([0, 1, 2])).detach()
    assert all(not torch.equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    ends = model.sample(6, seed=0, y=[0, 1, 2, 0, 1, 2], psi=0.0, noise_maps="fixed")
    torch.testing.assert_close(ends[:3], ends[3:])
    assert not torch.allclose(ends[0], ends[1], atol=1e-4)
    one_hot = torch.eye(3)[[0, 1, 2]]
    torch.testing.assert_close(model.mean_style(one_hot), model.mean_style(torch.tensor([0, 1, 2])))
    losses, _ = steps(model, Repeated(one_hot + torch.tensor([[0.0, 1.0, 0.0]])[[0, 0, 0]], n=3), 1)
    assert all(bool(value.isfinite()) for value in losses[0].values()), "vectors of several attributes"


def test_the_label_reaches_d() -> None:
    model = build(labels=3)
    x = torch.rand(2, 1, 16, 16)
    assert not torch.allclose(model.critic(x, torch.tensor([0, 1])), model.critic(x, torch.tensor([1, 1])))
    assert isinstance(model, HasCritic)


def test_adain_gives_each_map_the_deviation_and_the_mean_of_its_style() -> None:
    """Eq. 1 of Karras et al. 2019, and the rest of the model is the same."""
    model = build(generator="stylegan")
    assert isinstance(model, HasStyles)
    assert isinstance(model, Generates)
    ws = torch.randn(2, model.G.L, 5)
    for k, layer in enumerate(model.G.layers):
        inputs = torch.randn(2, 4 if k > 3 else 8, 4, 4)
        if layer.conv is not None:
            inputs = torch.randn(2, layer.conv.in_channels, 4, 4)
        side = 8 if layer.resample is not None else 4
        out = layer(inputs, ws[:, k], torch.randn(2, 1, side, side))
        scale, shift = layer.affine(ws[:, k]).chunk(2, 1)
        torch.testing.assert_close(out.mean((2, 3)), shift, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out.std((2, 3), correction=0), scale.abs(), rtol=1e-3, atol=1e-3)
    assert [m.shape[1] for m in model.modulations()] == [5] * model.G.L


@pytest.mark.parametrize("generator", ["stylegan", "stylegan2"])
def test_styles_and_modulations_fit_the_layers(generator: str) -> None:
    model = build(generator=generator)
    seen: dict[int, Tensor] = {}
    for k, layer in enumerate(model.G.layers):
        layer.affine.register_forward_hook(
            lambda module, given, out, k=k: seen.__setitem__(k, out - module.shift * module.bias)
        )
    ws = torch.randn(2, model.G.L, 5)
    model.synthesise(ws)
    for k, A in enumerate(model.modulations()):
        torch.testing.assert_close(seen[k], ws[:, k] @ A.T, rtol=1e-4, atol=1e-5)


def test_settings_without_meaning_are_refused() -> None:
    for settings, match in (
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"mixing": 1.5}, "mixing is a share"),
        ({"r1_every": 0}, "numbers of steps"),
    ):
        with pytest.raises(LimnerError, match=match):
            build(**settings)
    with pytest.raises(LimnerError, match="the same conditional for G and D"):
        build(labels=3, D={"name": "stylegan2.Discriminator", "width": 4})
