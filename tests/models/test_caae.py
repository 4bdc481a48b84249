"""Facts of CAAE: its four terms, who learns from whom, where the label enters, and what D_z does to the codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.condition import Attributes, Classes
from limner.core.errors import LimnerError
from limner.core.inference import reconstruct
from limner.metrics.kernel import mmd
from limner.nets import caae

K, Z, SHAPE, B = 3, 4, (1, 4, 4), 6
FACES = Attributes({"hair": ["red", "grey"], "glasses": ["none", "round", "square"]})
WEIGHTS = {"l1": 0.7, "adv_z": 0.3, "adv_img": 0.2, "tv": 0.1}


class Batches:
    """Batches of random images with labels, and the noise of a step, which `used` keeps."""

    def __init__(self, dtype: torch.dtype = torch.float64, condition: Any = None, batch: int = B) -> None:
        self.batch, self.position, self.dtype, self.condition = batch, 0, dtype, condition or Classes(K)
        self.generator = torch.Generator().manual_seed(1)
        self.used: list[Tensor] = []

    def __next__(self) -> Images:
        self.position += self.batch
        self.x = torch.rand(self.batch, *SHAPE, generator=self.generator, dtype=self.dtype) * 2 - 1
        self.y = self.condition.default(self.batch)
        return Images(self.x, self.y.to(self.dtype) if self.y.is_floating_point() else self.y)

    def rand(self, *size: int) -> Tensor:
        self.used.append(torch.rand(*size, generator=self.generator, dtype=self.dtype))
        return self.used[-1]


def build(condition: Any = None, **options: Any) -> Any:
    known = condition or Classes(K)
    nets: dict[str, Any] = {
        "encoder": {"name": "mlp.Encoder", "widths": [16]},
        "decoder": {"name": "mlp.Decoder", "widths": [16], "conditional": True},
        "D_z": {"name": "caae.CodeDiscriminator", "widths": [16, 8]},
        "D_img": {"name": "mlp.Discriminator", "widths": [8], "conditional": True},
    }
    spec = Spec.parse("model", {"name": "caae", "z": Z, **nets, **options})
    torch.manual_seed(0)
    model = spec.build(shape=SHAPE, classes=known.size, condition=known.header())
    model.spec = spec
    return model


def losses(model: Any, data: Any) -> dict[str, Tensor]:
    """What each update of a step descends; nothing is updated."""
    result: dict[str, Tensor] = {}

    def update(group: str, loss: Any) -> None:
        assert group not in result, "one step of each"
        result[group] = loss

    model.step(data, update)
    return result


def reaches(loss: Tensor, net: nn.Module) -> bool:
    grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return any(g is not None and bool(g.abs().sum() > 0) for g in grads)


# ---- the step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [Classes(K), FACES], ids=["classes", "attributes"])
def test_the_losses_are_those_of_the_paper(condition):
    """Equation 6, written out from the nets in float64."""
    model, data = build(condition, **WEIGHTS).double(), Batches(condition=condition)
    found = losses(model, data)
    x, y = data.x, condition.encode(data.y).double()
    z = torch.tanh(model.encoder(x))
    x_hat = model.decoder(z, y)
    z_star = 2 * data.used[0] - 1
    assert len(data.used) == 1

    def log_D(logits: Tensor) -> Tensor:
        return torch.log(torch.sigmoid(logits)).mean()

    def log_1_minus_D(logits: Tensor) -> Tensor:
        return torch.log(1 - torch.sigmoid(logits)).mean()

    prior_logits, code_logits = model.D_z(torch.cat([z_star, z])).chunk(2)
    d_z = -log_D(prior_logits) - log_1_minus_D(code_logits)
    d_img = -log_D(model.D_img(x, y)) - log_1_minus_D(model.D_img(x_hat, y))
    tv = (x_hat[..., 1:] - x_hat[..., :-1]).pow(2).mean() + (x_hat[..., 1:, :] - x_hat[..., :-1, :]).pow(2).mean()
    terms = {
        "l1": (x - x_hat).abs().mean(),
        "adv_z": -log_D(code_logits),
        "adv_img": -log_D(model.D_img(x_hat, y)),
        "tv": tv,
    }
    eg = sum(WEIGHTS[name] * term for name, term in terms.items())
    # losses are float32 inside
    for group, expected in {"D_z": d_z, "D_img": d_img, "EG": eg}.items():
        assert found[group].item() == pytest.approx(expected.item(), rel=2e-6), group


def test_each_net_learns_from_its_own_loss():
    model = build().double()
    found = losses(model, Batches())
    reached = {
        group: {name for name in ("encoder", "decoder", "D_z", "D_img") if reaches(loss, getattr(model, name))}
        for group, loss in found.items()
    }
    assert reached["D_z"] == {"D_z"}
    assert reached["D_img"] == {"D_img"}
    assert {"encoder", "decoder"} <= reached["EG"]


@pytest.mark.parametrize(("weight", "gets"), [(0.01, True), (0.0, False)])
def test_the_encoder_gets_the_gradient_of_d_z_unless_its_weight_is_zero(weight, gets):
    """The weights of the published code are adv_z = tv = 0: D_z is trained and nobody listens to it."""
    model = build(l1=0, adv_img=0, tv=0, adv_z=weight).double()
    loss = losses(model, Batches())["EG"]
    assert reaches(loss, model.encoder) == gets
    assert not reaches(loss, model.decoder), "codes are no pictures"


def test_codes_fill_the_cube_with_d_z_and_less_without():
    """MMD of held-out codes to U(-1,1)^z after 200 steps; with adv_z = tv = 0, as published, they crowd together."""
    far = {weight: distance_to_the_prior(weight) for weight in (0.0, 0.1)}
    assert far[0.1] < 0.25 * far[0.0], far


def distance_to_the_prior(weight: float, steps: int = 200) -> float:
    model, data = build(adv_z=weight, adv_img=0.0, tv=0.0), Batches(torch.float32, batch=64)
    adam = {g: torch.optim.Adam(m.parameters(), 2e-3, (0.5, 0.999)) for g, m in model.groups().items()}

    def update(group: str, loss: Tensor) -> None:
        adam[group].zero_grad()
        loss.backward(inputs=list(model.groups()[group].parameters()))
        adam[group].step()

    for _ in range(steps):
        model.step(data, update)
    held_out = Batches(torch.float32, batch=512)
    with torch.no_grad():
        z = model.eval().encode(next(held_out).x)
    return mmd(z.numpy(), (2 * held_out.rand(512, Z) - 1).numpy()).value


def test_batch_norm_of_codes_alone_would_hide_where_they_are_and_how_far_they_spread():
    """Why prior and codes go through D_z in one pass: alone, codes and 5 codes + 2 are the same to it."""
    torch.manual_seed(0)
    D_z, z, z_star = (
        caae.CodeDiscriminator(Z, shape=SHAPE).double(),
        torch.randn(64, Z).double(),
        torch.rand(64, Z).double(),
    )
    moved = 5 * z + 2
    torch.testing.assert_close(D_z(moved), D_z(z), rtol=1e-3, atol=1e-3)
    together = [D_z(torch.cat([z_star, codes])).chunk(2)[1] for codes in (z, moved)]
    assert (together[0] - together[1]).abs().mean() > 0.1


# ---- what it is used for --------------------------------------------------------------------------------------------


def test_a_picture_is_decoded_with_its_own_label_or_another():
    model = build(FACES).double().eval()
    data = Batches(condition=FACES)
    x, y = next(data)
    z = model.encode(x)
    assert float(z.detach().abs().max()) < 1
    torch.testing.assert_close(reconstruct(model, x, y), model.decode(z, y).detach())
    other = FACES.read("hair=grey glasses=square", B).double()
    assert not torch.allclose(model.decode(z, other), model.decode(z, y))


def test_a_row_shows_the_input_its_reconstruction_and_the_labels_in_order():
    labels = ["hair=red glasses=none", "hair=grey glasses=none", "hair=grey glasses=round"]
    model = build(FACES, progression=labels).eval()
    x, y = next(Batches(torch.float32, FACES))
    grid = model.progression_grid(x, y)
    assert (grid.columns, grid.headings) == (5, ["input", "reconstruction", *labels])
    rows = grid.images.unflatten(0, (-1, 5))
    z = model.encode(x)
    assert torch.equal(rows[:, 0], x)
    torch.testing.assert_close(rows[:, 1], model.decode(z, y).detach())
    torch.testing.assert_close(rows[:, 4], model.decode(z, FACES.read(labels[2], B)).detach())
    assert set(model.preview(Images(x, y), 4, 0)) == {"samples", "reconstructions", "progression"}


def test_of_classes_the_row_has_all_in_turn():
    grid = build().progression_grid(*next(Batches(torch.float32)))
    assert grid.headings == ["input", "reconstruction", "0", "1", "2"]


def test_samples_are_decoded_noise_of_the_cube():
    prior = build().prior
    z = prior.sample(2000, torch.Generator().manual_seed(0))
    assert prior.kind == "uniform"
    assert z.abs().max() <= 1
    assert z.var().item() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"name": "mlp.Encoder", "conditional": True}}, "not told the label"),
        ({"encoder": {"name": "mlp.Encoder", "heads": 2}}, "heads: 1"),
        ({"decoder": {"name": "mlp.Decoder"}}, "decoder.conditional=true"),
        ({"D_img": {"name": "mlp.Discriminator"}}, "D_img.conditional=true"),
        ({"D_z": {"name": "caae.CodeDiscriminator", "z": 7}}, "leave D_z.z out"),
        ({"D_z": {"name": "mlp.Discriminator"}}, "CodeDiscriminator"),
        ({"adv_z": -1.0}, "adv_z is a weight"),
        ({"progression": []}, "1 to 14"),
        ({"progression": ["9"]}, "no class '9'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options, message):
    with pytest.raises((ValueError, LimnerError), match=message):
        build(**options)


# ---- nets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 37, 53)])
def test_nets_fit_images_of_any_size(shape):
    E, G = (
        caae.Encoder(z=5, width=4, shape=shape),
        caae.Generator(conditional=True, z=5, width=4, shape=shape, classes=2),
    )
    D = caae.Discriminator(conditional=True, width=4, shape=shape, classes=2)
    y = torch.tensor([0, 1])
    x = G(torch.zeros(2, 5), y)
    assert x.shape == (2, *shape)
    assert E(x).shape == (2, 5)
    assert D(x, y).shape == (2,)
    assert caae.CodeDiscriminator(5, shape=shape)(E(x)).shape == (2,)


def test_at_128_pixels_the_nets_have_the_channels_of_the_paper():
    shape = (3, 128, 128)
    with torch.device("meta"):
        E, G = caae.Encoder(z=50, shape=shape), caae.Generator(conditional=True, z=50, shape=shape, classes=10)
        D = caae.Discriminator(conditional=True, shape=shape, classes=10)
    convolutions = [m.out_channels for m in E.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [64, 128, 256, 512, 1024]
    assert G.map_shape == (1024, 4, 4)
    assert G.repeats * G.classes == 50
    assert [(m.in_channels, m.out_channels) for m in D.modules() if isinstance(m, nn.Conv2d)] == [
        (3, 16),
        (26, 32),
        (32, 64),
        (64, 128),
    ]


def test_the_label_enters_d_img_after_its_first_layer():
    """The first map is the same for every label, and the next one is not."""
    D = caae.Discriminator(width=4, conditional=True, shape=(1, 16, 16), classes=3).eval()
    seen: list[list[Tensor]] = []
    convolutions = [m for m in D.modules() if isinstance(m, nn.Conv2d)]
    for m in convolutions:
        m.register_forward_hook(lambda _, __, out: seen[-1].append(out.detach()))
    x = torch.rand(2, 1, 16, 16)
    for k in range(2):
        seen.append([])
        D(x, torch.full((2,), k))
    (first_0, second_0, *_), (first_1, second_1, *_) = seen
    assert torch.equal(first_0, first_1)
    assert not torch.allclose(second_0, second_1)


def test_labels_are_minus_one_and_one():
    """As the authors have them, in G's input, repeated, and in D's maps."""
    G = caae.Generator(z=6, width=4, conditional=True, shape=(1, 16, 16), classes=3)
    D = caae.Discriminator(width=4, conditional=True, shape=(1, 16, 16), classes=3).eval()
    given: list[Tensor] = []
    second = [m for m in D.modules() if isinstance(m, nn.Conv2d)][1]
    for layer in (G.stem, second):
        layer.register_forward_pre_hook(lambda _, args: given.append(args[0].detach()))
    y, signs = torch.tensor([2, 0]), torch.tensor([[-1.0, -1, 1], [1, -1, -1]])
    D(G(torch.zeros(2, 6), y), y)
    torch.testing.assert_close(given[0][:, 6:], signs.repeat(1, 2))
    torch.testing.assert_close(given[1][:, 4:], signs[:, :, None, None].expand(-1, -1, 8, 8))


def test_vectors_and_indices_are_the_same_labels():
    G = caae.Generator(z=5, width=4, conditional=True, shape=(1, 16, 16), classes=3)
    D = caae.Discriminator(width=4, conditional=True, shape=(1, 16, 16), classes=3).eval()
    z, y = torch.randn(3, 5), torch.tensor([2, 0, 1])
    x = G(z, y)
    torch.testing.assert_close(G(z, F.one_hot(y, 3).float()), x)
    torch.testing.assert_close(D(x, F.one_hot(y, 3).float()), D(x, y))
