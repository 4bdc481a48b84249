"""Transforms before D do what their papers say, leave alone what they must, and let gradients of any order through."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.losses import penalties
from limner.nets import augment
from limner.nets.augment import ADA, DiffAugment, InstanceNoise

SHAPE = (1, 16, 24)


def images(n: int, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Pixels that all differ, in (0,1): none is a zero that came in from outside."""
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, *shape, generator=g, dtype=dtype) * 0.9 + 0.05


def ada(p: float, **options) -> ADA:
    net = ADA(**({"shape": SHAPE} | options))
    net.p.fill_(p)
    return net


def every(shape: tuple[int, int, int]) -> list[torch.nn.Module]:
    return [DiffAugment(shape=shape), ada(0.7, flip=True, shape=shape), InstanceNoise(shape=shape)]


# ---- what all have in common ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shape_and_dtype_are_kept_and_images_change(channels):
    shape = (channels, 16, 24)
    for net in every(shape):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = images(8, shape, dtype)
            torch.manual_seed(0)
            changed = net(x)
            assert changed.shape == x.shape
            assert changed.dtype == dtype
            assert not torch.equal(changed, x)
            assert changed.isfinite().all()


def test_evaluation_mode_is_the_identity():
    x = images(4)
    for net in every(SHAPE):
        assert net.eval()(x) is x


def test_transforms_are_seeded_and_differ_between_images():
    x = images(1).expand(16, -1, -1, -1)
    for net in every(SHAPE):
        torch.manual_seed(3)
        first = net(x)
        torch.manual_seed(3)
        assert torch.equal(net(x), first)
        assert not torch.equal(net(x), first)
        assert len(first.flatten(1).unique(dim=0)) >= 12


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 3, 4)])
def test_gradients_of_first_and_second_order(shape):
    """Penalties on D's gradient differentiate through the transform twice."""
    for net in every(shape):
        x = images(2, shape, torch.float64).requires_grad_()

        def changed(x, net=net):
            torch.manual_seed(1)
            return net(x)

        assert torch.autograd.gradcheck(changed, x)
        assert torch.autograd.gradgradcheck(lambda x, f=changed: f(x).square(), x, fast_mode=True)


def test_no_step_waits_for_the_device_and_the_forward_is_one_graph():
    """On the meta device there are no values to wait for: .item() and `if tensor` raise."""
    for net in every((3, 16, 16)):
        graph = torch.compile(net, backend="eager", fullgraph=True)
        assert graph(images(2, (3, 16, 16))).shape == (2, 3, 16, 16)
        net.to("meta")
        assert net(torch.empty(2, 3, 16, 16, device="meta")).shape == (2, 3, 16, 16)
        net.observe(torch.empty((), device="meta"), 64)
        with pytest.raises(RuntimeError):
            torch.empty((), device="meta").item()


def test_recipes_can_name_them():
    spec = Spec.parse("net", {"name": "augment.DiffAugment", "policy": ["translation"]})
    assert spec.build(shape=SHAPE).policy == ("translation",)
    assert Spec.from_json("net", spec.to_json()).build(shape=SHAPE).policy == ("translation",)
    assert Spec.parse("net", {"name": "augment.ADA", "speed_images": "20000"}).build(shape=SHAPE).speed_images == 20_000
    assert Spec.parse("net", "augment.InstanceNoise").build(shape=(2, 1, 1)).sigma == 0.1


# ---- DiffAugment ---------------------------------------------------------------------------------------------------


def moved(x: torch.Tensor, dy: int, dx: int, mode: str) -> torch.Tensor:
    """Images moved by whole pixels, what comes in being zeros or the reflection."""
    (h, w), m = x.shape[2:], 4
    return F.pad(x, (m, m, m, m), mode=mode)[..., m - dy : m - dy + h, m - dx : m - dx + w]


@pytest.mark.parametrize(("name", "mode"), [("translation", "constant"), ("blit", "reflect")])
def test_moves_are_of_whole_pixels_up_to_an_eighth(name, mode):
    x = images(1).expand(600, -1, -1, -1)
    torch.manual_seed(0)
    out = DiffAugment((name,), shape=SHAPE)(x) if name == "translation" else ada(1.0, policy=(name,))(x)
    recorded = set()
    for dy, dx in itertools.product(range(-4, 5), repeat=2):
        same = (out == moved(x, dy, dx, mode)).flatten(1).all(1)
        if same.any():
            recorded.add((dy, dx))
            out = out[~same]
            x = x[~same]
    assert not len(out)  # each image is one of those, bit for bit
    assert recorded == set(itertools.product(range(-2, 3), range(-3, 4)))  # sides of 16 and 24


def test_cutout_takes_a_rectangle_of_half_the_sides():
    x = images(1).expand(500, -1, -1, -1)
    torch.manual_seed(0)
    out = DiffAugment(("cutout",), shape=SHAPE)(x)
    hole = (out == 0)[:, 0]
    assert torch.equal(out[:, 0][~hole], x[:, 0][~hole])
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])  # a rectangle
    for side, covered, n in ((16, rows, 8), (24, columns, 12)):
        assert (covered.int().diff(dim=1) == 1).sum(1).max() <= 1  # without gaps
        assert covered.sum(1).max() == n
        assert covered.sum(1).min() == n // 2  # its centre on the edge
        assert covered.any(0).all()
        assert (covered.sum(1) == n).float().mean() == pytest.approx((side - n + 1) / (side + 1), abs=0.06)


def test_colour_of_grey_images_is_brightness_and_contrast():
    x = images(400, dtype=torch.float64)
    torch.manual_seed(0)
    out = DiffAugment(("colour",), shape=SHAPE)(x)
    brightness = (out - x).mean((1, 2, 3))
    centred, was = out - out.mean((1, 2, 3), keepdim=True), x - x.mean((1, 2, 3), keepdim=True)
    contrast = (centred * was).sum((1, 2, 3)) / was.square().sum((1, 2, 3))
    torch.testing.assert_close(centred, contrast[:, None, None, None] * was)
    for value, low, high in ((brightness, -0.5, 0.5), (contrast, 0.5, 1.5)):
        assert low <= value.min() < low + 0.02
        assert high - 0.02 < value.max() <= high
        assert value.mean() == pytest.approx((low + high) / 2, abs=0.05)


def test_colour_of_colour_images_adds_saturation_alone():
    x = images(400, (3, 8, 8), torch.float64)
    torch.manual_seed(0)
    out = DiffAugment(("colour",), shape=(3, 8, 8))(x)
    grey, was = out.mean(1), x.mean(1)
    assert (grey - was).mean((1, 2)).abs().max() <= 0.5
    centred, was = grey - grey.mean((1, 2), keepdim=True), was - was.mean((1, 2), keepdim=True)
    contrast = (centred * was).sum((1, 2)) / was.square().sum((1, 2))
    chroma, was = out - out.mean(1, keepdim=True), x - x.mean(1, keepdim=True)
    saturation = (chroma * was).sum((1, 2, 3)) / was.square().sum((1, 2, 3)) / contrast
    torch.testing.assert_close(chroma, (saturation * contrast)[:, None, None, None] * was)
    assert 0 <= saturation.min() < 0.04
    assert 1.96 < saturation.max() <= 2


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_keeps_its_values(channels):
    shape = (channels, 8, 8)
    x = images(20, shape)
    for net in (DiffAugment(("colour",), shape=shape), ada(1.0, policy=("colour",), shape=shape)):
        out = net(x)
        assert torch.equal(out[:, -1], x[:, -1])
        assert not torch.isclose(out[:, :-1], x[:, :-1]).any(1).all()


# ---- ADA: the changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_at_p_0_ada_is_the_identity_bit_for_bit(channels):
    shape = (channels, 15, 16)
    x = images(64, shape).requires_grad_()
    out = ada(0.0, flip=True, shape=shape)(x)
    assert torch.equal(out, x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize(("policy", "channels", "changes"), [("geometry", 1, 4), ("colour", 1, 2), ("colour", 3, 4)])
def test_each_change_happens_with_probability_p(policy, channels, changes):
    """An image is left alone with (1-p)^changes: two rotations count as one, since each has 1 - √(1-p)."""
    shape, p, n = (channels, 4, 4), 0.3, 20_000
    x = images(1, shape).expand(n, -1, -1, -1)
    torch.manual_seed(0)
    same = (ada(p, policy=(policy,), shape=shape)(x) == x).flatten(1).all(1).double().mean()
    expected = (1 - p) ** changes
    assert same == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))


def test_mirroring_is_optional_and_applies_to_half_of_the_images():
    shape = (1, 3, 3)
    x = images(1, shape).expand(2000, -1, -1, -1)  # sides of 3 move by U(-3/8, 3/8), which rounds to 0
    torch.manual_seed(0)
    out = ada(1.0, policy=("blit",), flip=True, shape=shape)(x)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert mirrored.double().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(out[~mirrored], x[~mirrored])
    assert torch.equal(ada(1.0, policy=("blit",), shape=shape)(x), x)


def test_warping_is_bilinear_with_reflection_as_grid_sample_knows_it():
    shape = (2, 7, 10)
    x = images(50, shape, torch.float64)
    g = torch.Generator().manual_seed(1)
    inverse = torch.eye(2, 3).repeat(50, 1, 1) + torch.randn(50, 2, 3, generator=g) * torch.tensor([0.5, 0.5, 6.0])
    half = torch.tensor([(10 - 1) / 2, (7 - 1) / 2], dtype=torch.float64)  # from pixels to [-1,1]
    theta = inverse.double() * torch.cat([half, torch.ones(1)]) / half[:, None]
    grid = F.affine_grid(theta, [50, *shape], align_corners=True)
    expected = F.grid_sample(x, grid, padding_mode="reflection", align_corners=True)
    torch.testing.assert_close(augment.warp(x, inverse), expected, rtol=1e-4, atol=1e-5)


def test_a_quarter_turn_is_a_quarter_turn():
    x = images(2, (3, 9, 9), torch.float64)
    turn = augment._rotation(torch.full((2,), math.pi / 2))[:, :2]
    result = augment.warp(x, turn)
    assert any(torch.allclose(result, torch.rot90(x, k, (2, 3)), atol=1e-6) for k in (1, 3))


@pytest.mark.parametrize("policy", [("blit",), ("geometry",)])
def test_pixels_outside_are_reflected(policy):
    """A constant image stays constant: only pixels of the image itself are mixed, with weights of sum 1."""
    x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None, None, None].expand(-1, *SHAPE)
    torch.testing.assert_close(ada(1.0, policy=policy)(x), x, rtol=0, atol=1e-12)


def test_rotation_leaves_round_images_alone_up_to_resampling():
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / 50)[None, None].expand(32, -1, -1, -1)
    angles = torch.linspace(-math.pi, math.pi, 32)
    result = augment.warp(blob, augment._rotation(angles)[:, :2])
    inside = x**2 + y**2 <= 15**2  # what turns in from beyond the edge is a reflection
    assert (result - blob)[..., inside].abs().max() < 0.01


def test_rotation_can_be_bounded():
    angles = ada(1.0, rotation=30.0)._angles(1000, torch.device("cpu"))
    assert 0.5 < angles.max() <= math.radians(30)
    assert -0.5 > angles.min() >= -math.radians(30)
    assert ada(1.0)._angles(1000, torch.device("cpu")).max() > 3


def test_hue_turns_about_grey_and_saturation_scales_away_from_it():
    hue, saturation = torch.linspace(-3, 3, 7), torch.linspace(0.5, 2, 7)
    matrix = augment._hue_saturation(hue, saturation)
    ones = torch.ones(3)
    torch.testing.assert_close(matrix @ ones, ones.expand(7, 3))  # grey stays grey
    v = torch.tensor([1.0, -2.0, 1.0])
    torch.testing.assert_close((matrix @ v).norm(dim=1), saturation * v.norm())
    torch.testing.assert_close((matrix @ v) @ v / (v @ v), saturation * hue.cos())
    third = augment._hue_saturation(torch.tensor([2 * math.pi / 3]), torch.ones(1))[0]
    torch.testing.assert_close(third @ torch.eye(3)[0], torch.eye(3)[1])  # a third of a turn: red becomes green


def test_grey_colour_is_one_gain_and_one_offset():
    x = images(5000, (1, 3, 3), torch.float64)
    torch.manual_seed(0)
    out = ada(1.0, policy=("colour",), shape=(1, 3, 3))(x)
    was, now = x - x.mean((1, 2, 3), keepdim=True), out - out.mean((1, 2, 3), keepdim=True)
    gain = (was * now).sum((1, 2, 3)) / was.square().sum((1, 2, 3))
    torch.testing.assert_close(now, gain[:, None, None, None] * was)
    offset = (out.mean((1, 2, 3)) / gain) - x.mean((1, 2, 3))
    assert gain.log2().std() == pytest.approx(0.5, rel=0.05)
    assert gain.log2().mean() == pytest.approx(0, abs=0.03)
    assert offset.std() == pytest.approx(0.2, rel=0.05)


# ---- ADA: the heuristic --------------------------------------------------------------------------------------------


def observe(net: ADA, *signs: float, images: int = 10) -> float:
    for sign in signs:
        net.observe(torch.tensor(sign), images)
    return net.p.item()


def test_p_moves_every_fourth_time_by_images_over_speed():
    net = ADA(target=0.6, speed_images=1000, shape=SHAPE)
    assert observe(net, 1.0, 1.0, 1.0) == 0
    assert observe(net, 1.0) == pytest.approx(40 / 1000, abs=1e-7)
    assert observe(net, 0.7, 0.7, 0.7, 0.7, images=25) == pytest.approx((40 + 100) / 1000, abs=1e-7)
    assert observe(net, 0.5, 0.5, 0.5, 0.5) == pytest.approx(100 / 1000, abs=1e-7)
    assert observe(net, -1.0, -1.0, -1.0, 1.0) == pytest.approx(60 / 1000, abs=1e-7)  # the mean of four counts
    assert observe(net, 1.0, 1.0, 1.0, -1.0) == pytest.approx(20 / 1000, abs=1e-7)  # 0.5 is below the target


def test_p_stays_between_0_and_the_cap():
    net = ADA(speed_images=100, cap=0.7, shape=SHAPE)
    assert observe(net, *[0.0] * 8) == 0
    assert observe(net, 1.0, 1.0, 1.0, 1.0) == pytest.approx(0.4)
    assert observe(net, *[1.0] * 8) == pytest.approx(0.7)
    assert observe(net, 0.0, 0.0, 0.0, 0.0) == pytest.approx(0.3)


def test_p_is_constant_on_the_target():
    net = ADA(target=0.5, speed_images=100, shape=SHAPE)
    assert observe(net, 0.25, 0.75, 0.5, 0.5) == 0
    assert observe(net, 1.0, 1.0, 1.0, 1.0) > 0
    before = net.p.item()
    assert observe(net, 0.25, 0.75, 0.5, 0.5) == before


def test_the_whole_state_is_in_the_state_dict():
    """Interrupted between two changes of p, training goes on as if it had not been."""
    net, resumed = ADA(speed_images=100, shape=SHAPE), ADA(speed_images=100, shape=SHAPE)
    observe(net, 1.0, 1.0, 1.0, 1.0, 0.9, 0.3, images=3)
    resumed.load_state_dict(net.state_dict())
    assert resumed.p == net.p > 0
    assert observe(resumed, 0.6, 0.7) == observe(net, 0.6, 0.7) != pytest.approx(0.12)
    noise, again = InstanceNoise(images=100, shape=SHAPE), InstanceNoise(images=100, shape=SHAPE)
    noise.observe(torch.zeros(()), 30)
    again.load_state_dict(noise.state_dict())
    assert again.level == noise.level == pytest.approx(0.07)


# ---- instance noise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, (2, 1, 1), (5, 3, 3)])
def test_noise_falls_linearly_to_nothing(shape):
    net = InstanceNoise(sigma=0.4, images=1000, shape=shape)
    n = 200_000 // math.prod(shape)
    x = torch.zeros(n, *shape)
    for share in (1.0, 0.75, 0.5, 0.25):
        assert net.level.item() == pytest.approx(0.4 * share)
        out = net(x)
        assert out.std() == pytest.approx(0.4 * share, rel=0.02)
        assert out.mean() == pytest.approx(0, abs=0.005)
        net.observe(torch.zeros(()), 250)
    for _ in range(3):
        some = images(10, shape)
        assert torch.equal(net(some), some)
        net.observe(torch.zeros(()), 250)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DiffAugment, ADA])
def test_points_and_images_of_many_channels_are_refused(kind):
    with pytest.raises(ValueError, match=r"not points or lines of 1×1; use augment\.InstanceNoise"):
        kind(shape=(2, 1, 1))
    with pytest.raises(ValueError, match="1 to 4 channels, these have 5"):
        kind(shape=(5, 8, 8))
    with pytest.raises(ValueError, match="policy: 'color' is not possible; choose from"):
        kind(policy=("color",), shape=SHAPE)
    with pytest.raises(ValueError, match="policy: there is none"):
        kind(policy=(), shape=SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 1.5}, "cap is a probability"),
        ({"target": 1.0}, "target must lie between -1 and 1"),
        ({"speed_images": 0}, "speed_images must be at least 1"),
        ({"rotation": 200.0}, "between 0 and 180 degrees"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ADA(**options, shape=SHAPE)
    with pytest.raises(ValueError, match="sigma is a standard deviation"):
        InstanceNoise(sigma=-1, shape=SHAPE)
    with pytest.raises(ValueError, match="images must be at least 1"):
        InstanceNoise(images=0, shape=SHAPE)


# ---- penalties on the gradient through a transform -----------------------------------------------------------------


def critic_of(shape: tuple[int, int, int], norm: str) -> torch.nn.Module:
    spec = Spec.parse("net", {"name": "dcgan.Discriminator", "width": 4, "norm": norm})
    return spec.build(shape=shape, classes=0).double()


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty", "dragan"])
def test_penalties_through_a_transform_equal_double_backward(norm, penalty):
    """In float64, value and gradient; for a critic that computes its input gradient, and for one that does not."""
    shape = (3, 16, 16)
    D = critic_of(shape, norm)
    real, fake = images(4, shape, torch.float64), images(4, shape, torch.float64).flip(0) - 0.3

    class Plain:
        """The critic without its own gradient, so that autograd goes through it twice, and through the transform."""

        def __init__(self, net: augment.Transform) -> None:
            self.net = net

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return D(self.net(x))

    for net in (DiffAugment(shape=shape), ada(0.9, flip=True, shape=shape), InstanceNoise(sigma=0.3, shape=shape)):
        found = []
        for critic in (penalties.Through(net, D), Plain(net)):
            torch.manual_seed(0)
            value = penalties.PENALTIES[penalty](critic, real, fake)
            weights = list(D.parameters())
            found.append((value, *torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_gradient_before_a_transform_is_not_that_after_it():
    """Where DiffAugment cuts a square out, D has no slope at the pixels that it cannot see."""
    shape = (1, 16, 16)
    D = critic_of(shape, "none")
    x, net = images(64, shape, torch.float64), DiffAugment(shape=shape)
    torch.manual_seed(0)
    before = penalties.r1(penalties.Through(net, D), x)
    torch.manual_seed(0)
    after = penalties.r1(D, net(x))
    assert float(before) < 0.97 * float(after)
