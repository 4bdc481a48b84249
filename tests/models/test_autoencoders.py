"""Facts of the autoencoders' papers, and parameter counts."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

import limner
from limner import api, data
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.prior import EmpiricalPrior
from limner.core.stream import Stream
from limner.core.update import Updates

SHAPE = (1, 28, 28)


def built(name: str, **overrides: object) -> torch.nn.Module:
    return recipes.load(name, overrides).model.build(shape=SHAPE, classes=10)


def trained(
    model: torch.nn.Module, images: int, lr: float = 3e-3, **options: object
) -> tuple[torch.nn.Module, list[float]]:
    stream = Stream(data.load("digits", **options), 64)
    update = Updates(model.groups(), {g: Adam(lr=lr) for g in model.groups()})
    losses = []
    while stream.position < images:
        stream.begin()
        losses.append(float(next(iter(model.step(stream, update).values())).detach()))
    return model.eval(), losses


def small(tree: dict[str, object]) -> torch.nn.Module:
    torch.manual_seed(0)
    return Spec.parse("model", tree).build(shape=(1, 8, 8), classes=10)


def test_documented_parameter_counts() -> None:
    assert api.dry_run("ae-mnist")["parameters"]["AE"] == {"total": 218_643, "trainable": 218_643, "buffers": 6}
    assert api.dry_run("conv-ae-mnist")["parameters"]["AE"]["total"] == 50_161


def test_a_linear_autoencoder_finds_the_span_of_pca() -> None:
    """Baldi and Hornik 1989: at its optimum it reconstructs exactly as well as PCA, and no better."""
    nets = {
        "encoder": {"name": "mlp.Encoder", "widths": []},
        "decoder": {"name": "mlp.Decoder", "widths": [], "out": "linear"},
    }
    model, _ = trained(small({"name": "autoencoder", "z": 8, **nets}), 200_000, lr=1e-3)
    x = to_float(data.load("digits").pixels)
    flat = x.flatten(1).numpy()
    pca = PCA(8).fit(flat)
    best = float(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean())
    with torch.no_grad():
        ours = float((model.decode(model.encode(x)) - x).square().mean())
    assert best * 0.999 <= ours <= best * 1.1


def test_an_overcomplete_code_copies_and_an_undercomplete_one_cannot() -> None:
    nets = {
        "encoder": {"name": "mlp.Encoder", "widths": []},
        "decoder": {"name": "mlp.Decoder", "widths": [], "out": "linear"},
    }
    wide, _ = trained(small({"name": "autoencoder", "z": 96, **nets}), 60_000)
    narrow, _ = trained(small({"name": "autoencoder", "z": 4, **nets}), 60_000)
    x = to_float(data.load("digits", split="test").pixels)
    with torch.no_grad():
        copied = (wide.decode(wide.encode(x)) - x).square().mean()
        lost = (narrow.decode(narrow.encode(x)) - x).square().mean()
    assert copied < 0.005
    assert lost > 20 * copied


def test_tied_weights_are_one_matrix() -> None:
    free, tied = built("deep-ae-mnist"), built("deep-ae-mnist", tie_weights=True)
    matrices = 784 * 1000 + 1000 * 500 + 500 * 250 + 250 * 30
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == matrices
    assert len(built("deep-ae-mnist").encoder.layers(torch.zeros(2, *SHAPE))) == 4


FAMILY = [
    {"name": "autoencoder"},
    {"name": "autoencoder", "reconstruction": "bce"},
    {"name": "sparse_autoencoder", "penalty": "l1", "weight": 0.3},
    {"name": "sparse_autoencoder", "penalty": "kl", "weight": 0.3, "rho": 0.2},
    {"name": "denoising_autoencoder", "sigma": 0.8},
    {"name": "denoising_autoencoder", "noise": "masking", "share": 0.4},
]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("tree", FAMILY)
def test_the_step_is_the_papers_box(tree: dict[str, object], reduction: str) -> None:
    """The loss written out for the same batch and noise, and the moments of its codes in the prior."""
    nets = {"encoder": {"name": "mlp.Encoder", "widths": [16]}, "decoder": {"name": "mlp.Decoder", "widths": [16]}}
    model = small({**nets, "z": 6, "reduction": reduction, **tree})
    stream, again = (Stream(data.load("digits"), 32) for _ in range(2))
    stream.begin(), again.begin()
    losses: dict[str, torch.Tensor] = {}
    model.step(stream, losses.__setitem__)
    x = next(again).x
    with torch.no_grad():
        recorded = model.corrupt(x, again.randn) if tree["name"] == "denoising_autoencoder" else x
        z = model.encode(recorded)
        errors = (model.decoder(z) - x).square()
        if "reconstruction" in tree:
            errors = F.binary_cross_entropy_with_logits(model.decoder(z), (x + 1) / 2, reduction="none")
        loss = errors.mean() if reduction == "mean" else errors.flatten(1).sum(1).mean()
        if tree.get("penalty") == "l1":
            loss = loss + 0.3 * z.abs().sum(1).mean()
        if tree.get("penalty") == "kl":
            loss = loss + 0.3 * kl_divergence(Bernoulli(torch.full((6,), 0.2)), Bernoulli(z.mean(0))).sum()
        torch.testing.assert_close(losses["AE"].detach(), loss)
        torch.testing.assert_close(model.prior.mean, 0.02 * z.mean(0))
        scores = -(model.decode(model.encode(x)) - x).square().flatten(1).mean(1)
        torch.testing.assert_close(model.score_samples(x), scores)
    assert bool((scores < 0).all())


@pytest.mark.parametrize("penalty", ["l1", "kl"])
def test_sparsity_switches_units_off(penalty: str) -> None:
    tree = {
        "name": "sparse_autoencoder",
        "z": 64,
        "penalty": penalty,
        "encoder": {"name": "mlp.Encoder", "widths": []},
        "decoder": {"name": "mlp.Decoder", "widths": []},
    }
    x = to_float(data.load("digits").pixels)
    free, _ = trained(small(tree | {"weight": 0.0}), 40_000)
    sparse, _ = trained(small(tree | {"weight": 0.05 if penalty == "kl" else 3e-3}), 40_000)
    with torch.no_grad():
        assert sparse.active(sparse.encode(x)) < 0.6 * free.active(free.encode(x))
        if penalty == "kl":
            assert abs(float(sparse.encode(x).mean()) - 0.05) < 0.05


def test_noise_has_the_documented_distribution() -> None:
    x = torch.zeros(400, 1, 16, 16)
    gaussian = built("denoising-ae-mnist", sigma=0.2)
    noisy = gaussian.corrupt(x, torch.randn)
    assert abs(float(noisy.std()) - 0.2) < 0.003
    masking = built("denoising-ae-mnist", noise="masking", share=0.3)
    masked = masking.corrupt(x, torch.randn)
    assert set(masked.unique().tolist()) == {-1.0, 0.0}
    assert float(built("denoising-ae-mnist", sigma=2.0).corrupt(x, torch.randn).abs().max()) == 1, "it stays an image"
    assert abs(float((masked == -1).float().mean()) - 0.3) < 0.01


def test_learning_to_denoise_beats_the_noise() -> None:
    tree = {
        "name": "denoising_autoencoder",
        "z": 24,
        "sigma": 0.5,
        "encoder": {"name": "mlp.Encoder", "widths": [64]},
        "decoder": {"name": "mlp.Decoder", "widths": [64]},
    }
    model, losses = trained(small(tree), 60_000)
    assert losses[-1] < losses[0] / 3
    x = to_float(data.load("digits", split="test").pixels)
    noisy = model.corrupt(x, torch.randn)
    with torch.no_grad():
        cleaned = model.decode(model.encode(noisy))
    assert (cleaned - x).square().mean() < 0.6 * (noisy - x).square().mean()


def test_anomalies_reconstruct_worse() -> None:
    tree = {
        "name": "autoencoder",
        "z": 6,
        "encoder": {"name": "mlp.Encoder", "widths": [32]},
        "decoder": {"name": "mlp.Decoder", "widths": [32]},
    }
    model, _ = trained(small(tree), 60_000, without=["0"])
    known = to_float(data.load("digits", split="test", without=["0"]).pixels)
    zeros = to_float(data.load("digits", split="all", only=["0"]).pixels)
    with torch.no_grad():
        assert model.score_samples(zeros).mean() < model.score_samples(known).mean()


@pytest.mark.parametrize("name", ["ae-mnist", "sparse-ae-mnist", "denoising-ae-mnist"])
def test_the_score_is_minus_the_mean_squared_error_of_each_image(name: str) -> None:
    model, x = built(name).eval(), torch.rand(3, *SHAPE) * 2 - 1
    with torch.no_grad():
        again = model.decode(model.encode(x))
        errors = [float(((a - b) ** 2).sum()) / 784 for a, b in zip(again, x)]
        assert model.score_samples(x).tolist() == pytest.approx([-e for e in errors], rel=1e-5)


def test_bce_gives_images_from_logits() -> None:
    model = built("ae-mnist", reconstruction="bce", **{"model.decoder.out": "linear"})
    z = torch.randn(3, 3)
    torch.testing.assert_close(model.decode(z), 2 * torch.sigmoid(model.decoder(z)) - 1)


def test_nets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LimnerError, match="give both one z"):
        built("ae-mnist", **{"model.decoder.z": 4})
    with pytest.raises(LimnerError, match="heads: 1"):
        built("ae-mnist", **{"model.encoder.heads": 2})


def test_the_prior_has_the_moments_of_the_codes() -> None:
    codes = EmpiricalPrior((2,), momentum=0.5)
    for _ in range(40):
        codes.update(torch.randn(512, 2) * torch.tensor([1.0, 3.0]) + torch.tensor([5.0, 0.0]))
    drawn = codes.sample(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([5.0, 0.0]), atol=0.3, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.0, 3.0]), atol=0.3, rtol=0)
    assert limner.list_models("*autoencoder") == ["autoencoder", "denoising_autoencoder", "sparse_autoencoder"]


def test_sampled_codes_are_not_below_the_minimum() -> None:
    """Codes of a sparse autoencoder are never negative; truncation bounds deviations from the mean."""
    codes = EmpiricalPrior((4,), least=0.0)
    codes.var.fill_(9.0)
    drawn = codes.sample(4000, torch.Generator().manual_seed(0))
    assert float(drawn.min()) == 0
    assert abs(float((drawn == 0).float().mean()) - 0.5) < 0.02
    free = EmpiricalPrior((4,))
    free.mean.fill_(2.0)
    free.var.fill_(9.0)
    near = free.sample(4000, torch.Generator().manual_seed(0), truncation=0.5)
    assert float((near - 2).abs().max()) == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("momentum", [0.02, 0.3])
def test_the_moments_of_codes_are_a_weighted_mean_of_those_of_the_batches(momentum: float) -> None:
    """Batch i of n weighs momentum (1 - momentum)^(n - i); what is left weighs the start, N(0, I)."""
    codes, n = EmpiricalPrior((3, 2), momentum=momentum), 7
    batches = [(i + 1) * torch.randn(16, 3, 2, generator=torch.Generator().manual_seed(i)) + i for i in range(n)]
    for z in batches:
        codes.update(z)
    weights = [momentum * (1 - momentum) ** (n - 1 - i) for i in range(n)]
    flat = [z.double().flatten(1) for z in batches]
    mean = sum(w * z.mean(0) for w, z in zip(weights, flat, strict=True))
    var = (1 - momentum) ** n + sum(w * z.var(0, correction=0) for w, z in zip(weights, flat, strict=True))
    torch.testing.assert_close(codes.mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(codes.var.double(), var, rtol=1e-5, atol=1e-6)


def test_nearest_up_sampling_learns_digits() -> None:
    """Without its norm this decoder dies at all black, whose error is 0.45."""
    torch.manual_seed(0)
    model = built("conv-ae-mnist", **{"model.decoder": {"name": "conv.NearestDecoder"}})
    stream = Stream(data.load("mnist-5k"), 64)
    update = Updates(model.groups(), {"AE": Adam(lr=1e-3)})
    while stream.position < 15_000:
        stream.begin()
        loss = model.step(stream, update)["loss/AE"]
    assert loss.item() < 0.25
