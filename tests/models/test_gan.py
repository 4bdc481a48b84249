"""Facts of the GAN: counts of the lectures, directions of the gradients, the optimal discriminator."""

from __future__ import annotations

import math

import torch

from limner import api, data
from limner.core import recipe as recipes
from limner.core.stream import Stream
from limner.core.update import Adam, Updates


def test_the_lectures_parameter_counts() -> None:
    plan = api.dry_run("gan-mnist")
    assert plan["parameters"]["G"]["trainable"] == 227_344
    assert plan["parameters"]["D"]["trainable"] == 201_217
    plan = api.dry_run("dcgan-mnist")
    assert plan["parameters"]["G"] == {"total": 2_305_472, "trainable": 2_305_472, "buffers": 25_472}


def test_k_steps_draw_k_fresh_batches() -> None:
    model = recipes.load("gan-mnist", {"d_steps": 3}).model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 16)
    groups: list[str] = []
    model.step(stream, lambda group, loss: groups.append(group))
    assert groups == ["D", "D", "D", "G"]
    assert stream.position == 48


def test_the_prior_is_what_it_says() -> None:
    model = recipes.load("gan-mnist", {"prior": "uniform"}).model.build(shape=(1, 8, 8), classes=10)
    z = model.z(4096, Stream(data.load("digits"), 16))
    assert -1 <= float(z.min()) < -0.99
    assert 0.99 < float(z.max()) <= 1
    assert abs(float(z.std()) - 1 / math.sqrt(3)) < 0.01


def test_a_discriminator_that_cannot_tell_goes_to_one_half() -> None:
    """With G's images drawn from the data themselves, D's optimum is 1/2 everywhere and its loss log 4."""
    model = recipes.load("gan-mnist").model.build(shape=(1, 8, 8), classes=10)
    stream = Stream(data.load("digits"), 256)

    class Real(torch.nn.Module):
        z = 1

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return next(stream).x + 0 * z.sum()

    model.G = Real()
    update = Updates({"D": model.D}, {"D": Adam(lr=1e-3, weight_decay=0.1)})
    losses = []
    for _ in range(150):
        stream.begin()
        logs = model.step(stream, lambda g, loss: update(g, loss) if g == "D" else None)
        losses.append(float(logs["loss/D"].detach()))
    assert abs(sum(losses[-30:]) / 30 - math.log(4)) < 0.02


def test_a_gan_learns_a_gaussian() -> None:
    """One mode of points in the plane: mean and spread arrive."""
    torch.manual_seed(0)
    source = data.load("ring", modes=1, sigma=0.1) if "modes" in data.load.__code__.co_varnames else data.load("ring")
    tree = {
        "name": "gan",
        "G": {"name": "mlp.Decoder", "z": 4, "widths": [32, 32], "out": "linear"},
        "D": {"name": "mlp.Discriminator", "widths": [64, 64]},
    }
    from limner.core.spec import Spec

    model = Spec.parse("model", tree).build(shape=source.shape, classes=0)
    stream = Stream(source, 256)
    update = Updates(model.groups(), {g: Adam(lr=1e-3, betas=(0.5, 0.9)) for g in "GD"})
    for _ in range(600):
        stream.begin()
        model.step(stream, update)
    model.spec = Spec.parse("model", tree)
    x = model.sample(1000, seed=0).flatten(1)
    real = source.pixels.flatten(1)
    assert (x.mean(0) - real.mean(0)).norm() < 0.35
    assert 0.4 < float(x.norm(dim=1).mean() / real.norm(dim=1).mean()) < 1.6
