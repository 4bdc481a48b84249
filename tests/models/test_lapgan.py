"""Facts of LAPGAN: the pyramid is exact, levels train alone, D sees l + h."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limner import data
from limner.config.spec import Spec
from limner.core.capabilities import Conditional, Generates
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.losses.adversarial import nonsaturating
from limner.models.lapgan import LAPGAN
from limner.nets.lapgan import down, pyramid, up


def small(levels: int = 2, conditional: bool = False, **more: Any) -> LAPGAN:
    nets = {"levels": levels, "coarse_widths": [16], "width": 4, "conditional": conditional}
    tree = {
        "name": "lapgan",
        "G": {"name": "lapgan.Generator", "kernels": [3, 3, 3], "coarse_z": 6, **nets},
        "D": {"name": "lapgan.Discriminator", "dropout": 0.0, **nets},
    }
    spec = Spec.parse("model", tree | more)
    torch.manual_seed(0)
    model: LAPGAN = spec.build(shape=(1, 8, 8), classes=10)
    model.spec = spec
    return model


def stream(batch: int = 8) -> Stream:
    return Stream(data.load("digits"), batch)


def test_low_pass_and_details_are_the_image_exactly() -> None:
    """In float32 for grey levels, in units of which the sums are exact; in float64 for images in [-1,1]."""
    levels = 2 * torch.randint(256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0)) - 255
    for x in (levels.float(), (levels.float() / 255).double()):
        images = pyramid(x, 3)
        assert [i.shape[2] for i in images] == [32, 16, 8, 4]
        for k in range(3):
            low = up(images[k + 1])
            h = images[k] - low
            assert h.abs().max() > 0
            assert torch.equal(low + h, images[k])
        back = images[3]
        for k in reversed(range(3)):
            back = up(back) + (images[k] - up(images[k + 1]))
        assert torch.equal(back, x)
    x = levels.float() / 255
    rounding = (up(down(x)) + (x - up(down(x))) - x).abs().max()
    assert float(rounding) <= 2**-23, "in float32 images in [-1,1] come back within a rounding"


def test_means_and_bilinear_weights() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert down(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    line = up(torch.tensor([[[[0.0, 4.0]]]]))[0, 0, 0]
    assert line.tolist() == [0, 1, 3, 4]
    constant = torch.full((1, 2, 4, 4), 0.3)
    torch.testing.assert_close(up(down(constant)), constant)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_step_at_one_level_moves_no_other(level: int) -> None:
    model = small(train_levels=[level]).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    source = stream()
    model.step(source, Updates(model.groups(), {"*": Adam(lr=1e-2)}))
    moved = {k.split(".")[0] + k.split(".")[2] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"G{level}", f"D{level}"}
    assert model.ema_groups == (f"G{level}",)


def test_levels_learn_the_same_together_and_alone() -> None:
    """The loss of a level depends on the data and its own nets alone."""
    together = small().step(stream(), lambda group, loss: None)
    first = small(train_levels=[0]).step(stream(), lambda group, loss: None)
    torch.testing.assert_close(first["loss/D0"], together["loss/D0"])
    assert set(first) == {"loss/D0", "loss/G0", "term/accuracy_D0"}
    assert len(together) == 9


def test_d_sees_the_sum_and_g_the_noise_beside_the_low_pass_image() -> None:
    """D of a level gets l + h and nothing else; G gets its noise and the low-pass image of the real one."""
    model = small().double().train()
    given: dict[str, list[torch.Tensor]] = {"D": [], "G": []}
    model.D.net[0].net[0].register_forward_hook(lambda m, x, out: given["D"].append(x[0]))
    model.G.net[0].register_forward_hook(lambda m, x, out: given["G"].append((x[0], x[1], out)))

    class Doubled:
        batch, position = 8, 0
        source = stream()

        def __next__(self) -> Any:
            self.x = next(self.source).x.double()
            return self.x, None

        def rand(self, *size: int) -> torch.Tensor:
            return self.source.rand(*size).double()

    doubled, losses = Doubled(), {}
    logs = model.step(doubled, losses.__setitem__)
    assert list(losses) == [f"{n}{k}" for k in (0, 1, 2) for n in "DG"]
    low = up(down(doubled.x))
    (real, fake, again), ((z, l, h), (z2, _, h2)) = given["D"], given["G"]
    assert torch.equal(real, doubled.x)
    assert torch.equal(l, low)
    torch.testing.assert_close(fake, low + h)
    torch.testing.assert_close(again, low + h2)
    assert z.shape == (8, 1, 8, 8)
    assert not torch.equal(z, z2)
    D = model.D.net[0]
    torch.testing.assert_close(losses["D0"], nonsaturating.d(D(doubled.x), D(fake)))
    torch.testing.assert_close(losses["G0"], nonsaturating.g(D(again), None))
    right = ((D(doubled.x) > 0).double().mean() + (D(fake) < 0).double().mean()) / 2
    assert float(logs["term/accuracy_D0"]) == pytest.approx(float(right))


def test_details_are_drawn_given_the_generated_image_below() -> None:
    model = small().eval()
    z = model.prior.sample(3, torch.Generator().manual_seed(0))
    assert z.shape == (3, 64 + 16 + 6)
    assert z.abs().max() <= 1
    (low_0, h_0), (low_1, h_1), (coarse, _) = model.G.images(z)
    assert coarse.shape == (3, 1, 2, 2)
    assert torch.equal(low_1, up(coarse))
    assert torch.equal(low_0, up(low_1 + h_1))
    assert torch.equal(model.decode(z), (low_0 + h_0).clamp(-1, 1))
    other = z.clone()
    other[:, :64] = -z[:, :64]  # the noise of the finest level alone
    (low, h), *_ = model.G.images(other)
    assert torch.equal(low, low_0)
    assert not torch.equal(h, h_0)
    torch.nn.init.constant_(model.G.net[0].net[-1].bias, 3.0)
    assert model.G(z).max() > 1
    assert model.decode(z).max() == 1, "details have no bounds, images have"


def test_previews_show_levels_side_by_side() -> None:
    model = small().eval()
    grids = model.preview(None, 4, 0)
    details = grids["details"]
    assert (details.columns, len(details.images)) == (1 + 3 * 2, 8 * 7)
    low, h, image = details.images[4:7]
    torch.testing.assert_close((low + h).clamp(-1, 1), image)
    assert torch.equal(image, model.sample(8, seed=0)[0])


def test_a_class_reaches_every_level() -> None:
    model = small(conditional=True).eval()
    assert isinstance(model, (Generates, Conditional))
    assert not isinstance(small(), Conditional)
    z = model.prior.sample(2, torch.Generator().manual_seed(0))
    one, two = (model.G.images(z, torch.tensor([k, k])) for k in (3, 4))
    assert not any(torch.equal(a[1], b[1]) for a, b in zip(one[:-1], two[:-1], strict=True))
    assert not torch.equal(one[-1][0], two[-1][0])
    x = torch.rand(2, 1, 8, 8)
    assert not torch.equal(*(model.D(x, torch.tensor([k, k])) for k in (3, 4)))
    model.train().step(stream(), Updates(model.groups(), {"*": Adam()}))
    sheet = model.sample(10, seed=0, columns=10)
    assert not torch.equal(sheet[0], sheet[1])


def test_coarse_images_differ_from_the_start() -> None:
    """Without batch norm the coarsest generator gives nearly one image, and short trainings never leave it."""
    spread = {}
    for norm in ("batch", "none"):
        torch.manual_seed(0)
        model = small(G={"name": "lapgan.Generator", "coarse_widths": [64, 64], "coarse_norm": norm, "width": 4})
        coarse = model.train().G.net[-1](model.noise(2, 64, stream()))
        spread[norm] = float(coarse.detach().std(0).mean())
    assert spread["batch"] > 3 * spread["none"]


def test_bad_arguments() -> None:
    with pytest.raises(
        LimnerError, match="images of 8×8 cannot be halved 3 times to 2 pixels or more; use levels=1 or size=16"
    ):
        small(3)
    with pytest.raises(LimnerError, match=r"train_levels must be some of 0 .the finest. to 2"):
        small(train_levels=[3])
    with pytest.raises(LimnerError, match="kernels must be odd"):
        small(G={"name": "lapgan.Generator", "kernels": [4, 3, 3]})
    with pytest.raises(LimnerError, match="G has 1 levels and 0 classes, D 2"):
        small(G={"name": "lapgan.Generator", "levels": 1})


def test_a_level_learns_details_that_its_critic_cannot_tell() -> None:
    """Edges of a fixed direction on flat images: after training, D of the level is near chance and h has their size."""
    torch.manual_seed(0)
    model = small(1, train_levels=[0])
    update = Updates(model.groups(), {"*": Adam(lr=2e-3, betas=(0.5, 0.999))})
    source = stream(32)
    x = next(source).x
    size = float((x - up(down(x))).std())

    def spread() -> float:
        return float(model.G.net[0](2 * source.rand(32, 1, 8, 8) - 1, up(down(x))).detach().std())

    before = spread()
    for _ in range(120):
        source.begin()
        model.step(source, update)
    after = spread()
    assert before < 0.1 * size
    assert 0.5 * size < after < 2 * size
