"""Facts of the conditional GANs: whose labels, which losses, and what AC-GAN's successors correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.condition import Attributes, Classes
from limner.core.errors import LimnerError
from limner.losses.classification import cross_entropy
from limner.nets.augment import Identity

K, Z, SHAPE = 3, 4, (1, 4, 4)
MODELS = ("cgan", "projection_gan", "acgan", "tac_gan", "adc_gan")
CLASSIFIERS = {"acgan": 1, "tac_gan": 2, "adc_gan": 2}
FACES = Attributes({"hair": ["red", "grey"], "glasses": ["none", "round", "square"]})


class Batches:
    """Batches of random images and labels in float64, and the noise of a step."""

    def __init__(self, labels: Callable[[int], Tensor], batch: int = 6) -> None:
        self.batch, self.position, self.labels = batch, 0, labels
        self.generator = torch.Generator().manual_seed(1)
        self.given: list[Images] = []

    def __next__(self) -> Images:
        self.position += self.batch
        x = torch.rand(self.batch, *SHAPE, generator=self.generator, dtype=torch.float64) * 2 - 1
        self.given.append(Images(x, self.labels(self.batch)))
        return self.given[-1]

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator, dtype=torch.float64)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(*size, generator=self.generator, dtype=torch.float64)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position))


def classes(n: int = 6) -> Batches:
    return Batches(lambda k: torch.arange(k) % K, n)


def build(name: str, condition: Any = None, **options: Any) -> Any:
    known = condition or Classes(K)
    d: dict[str, Any] = {"name": "mlp.Discriminator", "widths": [8]}
    if name in CLASSIFIERS:
        d["classifiers"] = CLASSIFIERS[name]
    else:
        d["conditional"] = "projection" if name == "projection_gan" else True
    g = {"name": "mlp.Decoder", "z": Z, "widths": [8], "conditional": True}
    spec = Spec.parse("model", {"name": name, "G": g, "D": d, **options})
    torch.manual_seed(0)
    model = spec.build(shape=SHAPE, classes=known.size, condition=known.header())
    model.spec = spec
    return model.double()


def losses(model: Any, data: Any) -> list[tuple[str, Tensor]]:
    """What each update of a step descends; nothing is updated."""
    result: list[tuple[str, Tensor]] = []
    model.step(data, lambda group, loss: result.append((group, loss)))
    return result


# ---- what holds for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_generated_images_have_the_labels_of_the_real_batch(name):
    model, data, told = build(name), classes(), []
    for net in (model.G, model.D):
        net.register_forward_pre_hook(lambda module, given: told.append(given[1]) if len(given) > 1 else None)
    losses(model, data)
    assert told
    for y in told:
        for part in y.chunk(len(y) // 6):
            assert torch.equal(part, data.given[-1].y)


@pytest.mark.parametrize("name", MODELS)
def test_the_label_decides_and_a_row_shares_its_noise(name):
    model = build(name).float()
    x = model.sample(2 * K, seed=0, columns=K)
    for row in x.unflatten(0, (2, K)):
        assert not torch.allclose(row[0], row[1])
    z = model.prior.sample(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.decode(z.repeat_interleave(K, 0), torch.arange(K).repeat(2))
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(model.sample(2 * K, seed=0, y=2, columns=K)[0], x[2])


@pytest.mark.parametrize("name", MODELS)
def test_attributes_are_labels_too(name):
    model = build(name, FACES)
    data = Batches(lambda n: FACES.vectors(torch.tensor([[0, 1], [1, -1], [-1, 2]]).repeat(n // 3, 1)).double())
    assert all(loss.isfinite() for _, loss in losses(model, data))
    assert model.float().sample(2, y="hair=red glasses=round", seed=0).shape == (2, *SHAPE)


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_is_refused_in_one_line(name):
    with pytest.raises(LimnerError, match=f"{name}: this model needs data with labels"):
        build(name, Classes(1))
    with pytest.raises(LimnerError, match=r"G is not told the label; write G.conditional=(true|cbn)"):
        build(name, G={"name": "mlp.Decoder", "z": Z})
    message = "write D.classifiers=" if name in CLASSIFIERS else "D is not told the label; write D.conditional="
    with pytest.raises(LimnerError, match=message):
        build(name, D={"name": "mlp.Discriminator"})
    if name in CLASSIFIERS:
        with pytest.raises(LimnerError, match="class_weight must be positive"):
            build(name, class_weight=0)
        told = {"name": "mlp.Discriminator", "classifiers": CLASSIFIERS[name], "conditional": True}
        with pytest.raises(LimnerError, match=r"must not be told it; write D.conditional=false"):
            build(name, D=told)


def test_a_classifier_cannot_tell_texts():
    from limner.core.adversarial import require_classifiers

    class Texts:
        values: Mapping[str, list[str]] = MappingProxyType({})

    D = nn.Module()
    D.classifiers = 1  # type: ignore[assignment]
    with pytest.raises(ValueError, match="use cgan or projection_gan for captions"):
        require_classifiers(D, 1, Texts())  # type: ignore[arg-type]


def test_critic_and_sample_gradient_take_labels():
    model, y = build("projection_gan"), torch.arange(6) % K
    x, real = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    assert torch.equal(model.critic(x, y), model.D(x, y).float())
    fake = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.D(fake, y).sum(), fake)  # hinge: G descends −f
    torch.testing.assert_close(model.sample_gradient(x, real, y), expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(model.sample_gradient(x, real, y.flip(0)), expected)


def test_one_pass_of_the_discriminator_is_two():
    model, y = build("cgan"), torch.arange(6) % K
    x, fake = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    for one, two in zip(model.real_and_fake(x, fake, y), (model.D(x, y), model.D(fake, y)), strict=True):
        torch.testing.assert_close(one, two)
    mixing = build("cgan", D={"name": "mlp.Discriminator", "widths": [8], "norm": "batch", "conditional": True})
    assert torch.equal(mixing.real_and_fake(x, fake, y)[1], mixing.D(fake, y))


def test_a_critic_of_packs_gets_copies_of_an_image_with_its_label():
    D = {"name": "mlp.Discriminator", "widths": [8], "pack": 2, "conditional": True}
    model, y = build("cgan", D=D), torch.arange(6) % K
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    copies = torch.cat([model.D(x[[i, i]], y[[i, i]]) for i in range(6)])
    torch.testing.assert_close(model.critic(x, y), copies.float())


@pytest.mark.parametrize("name", ["cgan", "projection_gan"])
def test_d_sees_transformed_images_only(name):
    class Grey(Identity):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x + 0.5

    model, seen = build(name), []
    model.transform = Grey()
    model.D.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    losses(model, classes())
    assert len(seen) > 1
    assert all((x == 0.5).all() for x in seen)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_relativistic_generator_is_compared_with_real_images(name):
    model, data = build(name, adversarial="relativistic"), classes()
    model.class_weight = 0.0
    x, y = next(data)
    data.randn(6, Z)
    expected = F.softplus(model.D(x) - model.D(model.G(data.randn(6, Z), y))).mean()
    torch.testing.assert_close(losses(model, classes())[1][1], expected)


# ---- against implementations written out ----------------------------------------------------------------------------


def reference_G(model: Any, z: Tensor, y: Tensor) -> Tensor:
    first, last = model.G.hidden[0][0], model.G.head
    h = torch.cat([z, F.one_hot(y, K).double()], 1) @ first.weight.T + first.bias
    return (h.relu() @ last.weight.T + last.bias).tanh().view(-1, *SHAPE)


def reference_phi(model: Any, x: Tensor, y: Tensor) -> Tensor:
    layer = model.D.hidden[0][0]
    x = x.flatten(1)
    x = torch.cat([x, F.one_hot(y, K).double()], 1) if layer.in_features > x.shape[1] else x
    return F.leaky_relu(x @ layer.weight.T + layer.bias, 0.2)


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, target))


def log_p(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(len(y)), y].log().mean()


def reference(name: str, model: Any) -> list[Tensor]:
    """Losses of D and G of one step, from the papers' formulas."""
    data = classes()
    x, y = next(data)
    z_D = data.randn(6, Z)
    z_G = z_D if name == "cgan" else data.randn(6, Z)
    fake_D, fake_G = reference_G(model, z_D, y).detach(), reference_G(model, z_G, y)
    real, fake, fooled = (reference_phi(model, images, y) for images in (x, fake_D, fake_G))
    head = model.D.head.head if name == "projection_gan" else model.D.head
    f = [(phi @ head.weight.T + head.bias).squeeze(1) for phi in (real, fake, fooled)]
    if name == "projection_gan":
        f = [a + (model.D.head.V.weight[y] * phi).sum(1) for a, phi in zip(f, (real, fake, fooled), strict=True)]
        return [(1 - f[0]).clamp_min(0).mean() + (1 + f[1]).clamp_min(0).mean(), -f[2].mean()]
    loss_D, loss_G = bce(f[0], 1) + bce(f[1], 0), bce(f[2], 1)
    if name == "cgan":
        return [loss_D, loss_G]
    C = [phi @ model.D.C.weight.T + model.D.C.bias for phi in (real, fake, fooled)]
    if name == "acgan":
        return [loss_D - log_p(C[0], y) - log_p(C[1], y), loss_G - log_p(C[2], y)]
    if name == "tac_gan":
        return [
            loss_D - log_p(C[0][:, :K], y) - log_p(C[1][:, K:], y),
            loss_G - log_p(C[2][:, :K], y) + log_p(C[2][:, K:], y),
        ]
    return [loss_D - log_p(C[0], y) - log_p(C[1], K + y), loss_G - log_p(C[2], y) + log_p(C[2], K + y)]


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_the_papers_formulas(name):
    """Losses and the gradients of each group's weights, in float64."""
    model = build(name, **({"d_steps": 1} if name == "projection_gan" else {}))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    for (group, ours), theirs in zip(losses(model, classes()), reference(name, model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        weights = list(model.groups()[group].parameters())
        for a, b in zip(
            torch.autograd.grad(ours, weights, retain_graph=True),
            torch.autograd.grad(theirs, weights, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
            assert a.abs().max() > 0


def test_five_steps_of_the_projection_discriminator_draw_five_batches():
    data = classes()
    assert [group for group, _ in losses(build("projection_gan"), data)] == ["D"] * 5 + ["G"]
    assert len(data.given) == 5


# ---- the bias of AC-GAN and its corrections -------------------------------------------------------------------------


def class_gradient(model: Any, weight: float) -> list[Tensor]:
    """The part of G's gradient that comes from the classes."""
    model.class_weight = weight
    (_, _), (_, loss) = losses(model, classes())
    with_classes = torch.autograd.grad(loss, list(model.G.parameters()))
    model.class_weight = 0.0
    (_, _), (_, loss) = losses(model, classes())
    return [a - b for a, b in zip(with_classes, torch.autograd.grad(loss, list(model.G.parameters())), strict=True)]


def test_a_classifier_of_real_images_alone_learns_nothing_from_generated_ones():
    (_, ours), (_, of_g) = losses(build("acgan", class_weight=2.0, classify_fakes=False), classes())
    (_, papers), (_, papers_g) = losses(build("acgan", class_weight=2.0), classes())
    model, data = build("acgan", class_weight=2.0), classes()
    x, y = next(data)
    fake = model.G(model.prior.batch(len(x), data), y)
    of_fakes = F.cross_entropy(model.D.classify(fake)[1][0], y)
    torch.testing.assert_close(papers - ours, 2 * of_fakes)
    torch.testing.assert_close(papers_g, of_g)


@pytest.mark.parametrize(("name", "cancels"), [("acgan", False), ("tac_gan", True), ("adc_gan", True)])
def test_where_the_classifiers_agree_their_gradients_cancel(name, cancels):
    """Where p_G = p the best C and C_mi are equal, and P(y+|x) = P(y-|x): G feels no class at all. AC-GAN's G does."""
    model = build(name)
    with torch.no_grad():
        model.D.C.weight[-K:] = model.D.C.weight[:K]
        model.D.C.bias[-K:] = model.D.C.bias[:K]
    largest = max(float(g.abs().max()) for g in class_gradient(model, 1.0))
    assert (largest < 1e-15) if cancels else (largest > 1e-4)


SHARED = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]], dtype=torch.float64)  # p(x|y): class 0 is {0,1}, 1 is {0,2}
AVOIDED = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)  # q leaves the shared image out


def class_terms(q: Tensor) -> dict[str, float]:
    """What the classes cost G at the best classifiers, for p = SHARED and generated images of q(x|y)."""
    joint_p, joint_q = SHARED / 2, q / 2  # (y,x)
    e = 1e-12
    given_p, given_q = ((joint + e) / (joint + e).sum(0) for joint in (joint_p, joint_q))

    def mean_q(log: Tensor) -> float:
        return float((joint_q * log).sum())

    return {
        "acgan": mean_q(-given_p.log()),
        "tac_gan": mean_q(given_q.log() - given_p.log()),
        "adc_gan": mean_q((joint_q + e).log() - (joint_p + e).log()),
    }


def test_acgan_gains_by_leaving_out_what_classes_share():
    """Of the images that two classes share, AC-GAN's G wants none; TAC's does not mind, ADC's wants them all."""
    right, avoiding = class_terms(SHARED), class_terms(AVOIDED)
    assert right["acgan"] == pytest.approx(0.5 * torch.tensor(2.0).log().item())
    assert avoiding["acgan"] == pytest.approx(0, abs=1e-9)
    assert right["tac_gan"] == pytest.approx(0, abs=1e-9)
    assert avoiding["tac_gan"] == pytest.approx(0, abs=1e-9)
    assert right["adc_gan"] == pytest.approx(0, abs=1e-9)
    assert avoiding["adc_gan"] == pytest.approx(torch.tensor(2.0).log().item())  # KL(q(x,y) ‖ p(x,y))


def test_the_best_discriminative_classifier_tells_the_ratio_of_the_densities():
    """At C_d(x) = log p(x,y), log p_G(x,y) the gradient of its convex loss is 0, so this is its optimum."""
    p, q = (torch.rand(3, K, dtype=torch.float64) for _ in range(2))  # (x,y), three images
    p, q = p / p.sum(), q / q.sum()
    logits = torch.cat([p.log(), q.log()], 1).requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for x in range(3):
        for y in range(K):
            plus, minus = logits[x : x + 1].chunk(2, 1)
            label = torch.tensor([y])
            loss = loss + p[x, y] * cross_entropy(plus, label, [K], others=minus)
            loss = loss + q[x, y] * cross_entropy(minus, label, [K], others=plus)
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.abs().max() < 1e-15


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_each_class_arrives_at_its_place(name):
    """Two classes of points, about (1,0) and (−1,0): after a short training each label gives its own."""
    from limner.core.optimisers import Adam
    from limner.core.update import Updates

    torch.manual_seed(0)
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    d: dict[str, Any] = {"name": "mlp.Discriminator", "widths": [32]}
    d |= {"classifiers": CLASSIFIERS[name]} if name in CLASSIFIERS else {"conditional": True}
    g = {"name": "mlp.Decoder", "z": 2, "widths": [32], "out": "linear", "conditional": True}
    options = {"d_steps": 1} if name == "projection_gan" else {}
    model = Spec.parse("model", {"name": name, "G": g, "D": d, **options}).build(shape=(2, 1, 1), classes=2)

    class Points(Batches):
        def __next__(self) -> Images:
            self.position += self.batch
            y = torch.arange(self.batch) % 2
            noise = 0.1 * torch.randn(self.batch, 2, generator=self.generator)
            return Images((points[y] + noise)[:, :, None, None], y)

        def randn(self, *size: int) -> Tensor:
            return torch.randn(*size, generator=self.generator)

    data, update = Points(torch.zeros, 128), Updates(model.groups(), {k: Adam(lr=2e-3, betas=(0.5, 0.9)) for k in "GD"})
    for _ in range(200):
        model.step(data, update)
    means = torch.stack([model.sample(200, y=k, seed=0).flatten(1).mean(0) for k in (0, 1)])
    assert (means - points).norm(dim=1).max() < 0.4


def test_the_frame_of_points_shows_what_d_says_on_average_over_labels() -> None:
    from limner.core.frame import frame

    g = {"name": "mlp.Decoder", "z": 2, "widths": [8], "out": "linear", "conditional": True}
    d = {"name": "mlp.Discriminator", "widths": [8], "conditional": True}
    model = Spec.parse("model", {"name": "cgan", "G": g, "D": d}).build(shape=(2, 1, 1), classes=2).eval()
    shown = frame(model, torch.randn(50, 2, 1, 1), seed=0)
    x = shown["places"][:, :, None, None]
    expected = torch.stack([model.critic(x, torch.full((len(x),), k)) for k in (0, 1)]).mean(0)
    torch.testing.assert_close(shown["logits"], expected)
    y = torch.arange(len(shown["fake"])) % 2
    pull = model.sample_gradient(shown["fake"][:, :, None, None], shown["fake"][:, :, None, None], y)
    torch.testing.assert_close(shown["pull"], pull.flatten(1))
