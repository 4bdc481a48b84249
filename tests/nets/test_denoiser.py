"""Denoisers: any shape, what the class and the time do, derivatives in both directions, sizes, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.utils.flop_counter import FlopCounterMode

from limner.nets.denoiser import MLP, UNet
from limner.nets.protocols import Denoiser

SHAPES = [(1, 28, 28), (2, 32, 32), (3, 64, 64), (3, 24, 40), (4, 36, 20), (1, 8, 8), (5, 12, 4)]


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(net: Denoiser) -> Denoiser:
    """The net in float64, every weight moved off its start: what began at zero speaks too."""
    net = net.double().eval()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p += 0.1 * noise(*p.shape, seed=i)
    return net


def small(**options: Any) -> Denoiser:
    return awake(UNet(width=8, **{"shape": (2, 8, 12)} | options))


def point(**options: Any) -> Denoiser:
    return awake(MLP(width=16, **{"shape": (3, 1, 1)} | options))


BOTH = pytest.mark.parametrize("make", [small, point])


@pytest.mark.parametrize("shape", SHAPES)
def test_any_channels_and_any_aspect(shape):
    for heads in (1, 2):
        net = UNet(width=8, heads=heads, shape=shape)
        out = net(torch.randn(2, *shape), torch.rand(2))
        assert out.shape == (2, heads * shape[0], *shape[1:])
        assert not out.any(), "the last convolution begins at zero"


@pytest.mark.parametrize(
    ("shape", "width", "mults", "millions", "gigaflop"),
    [
        ((1, 28, 28), 16, (1, 2, 4), 0.753, 0.131),
        ((1, 28, 28), 32, (1, 2, 2), 1.251, 0.340),
        ((1, 28, 28), 32, (1, 2, 4), 3.000, 0.518),
        ((1, 28, 28), 48, (1, 2, 2), 2.810, 0.763),
        ((1, 28, 28), 64, (1, 2, 2), 4.991, 1.354),
        ((3, 32, 32), 32, (1, 2, 4), 3.001, 0.680),
        ((3, 64, 64), 32, (1, 2, 2, 4), 3.466, 1.980),
    ],
)
def test_the_table_of_sizes(shape, width, mults, millions, gigaflop):
    with torch.device("meta"):
        net = UNet(width, mults, shape=shape)
        with FlopCounterMode(display=False) as counter:
            net(torch.randn(1, *shape), torch.rand(1))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflop, abs=6e-4)


def test_attention_only_where_the_longer_side_is_small_enough():
    def sides(**options: Any) -> set[tuple[int, int]]:
        seen, net = set(), UNet(width=8, mults=(1, 1, 1), **options)
        for m in net.modules():
            if type(m).__name__ == "_Attention":
                m.register_forward_hook(lambda _m, given, _out: seen.add(tuple(given[0].shape[2:])))
        net(torch.randn(1, *net.shape), torch.rand(1))
        return seen

    assert sides(shape=(1, 28, 28)) == {(7, 7)}
    assert sides(shape=(1, 28, 28), attention=14) == {(7, 7), (14, 14)}
    assert sides(shape=(1, 16, 64), attention=8) == set()
    assert sides(shape=(1, 28, 28), attention=0) == set()


@BOTH
def test_the_null_class_is_no_class_and_the_class_matters(make):
    net = make(conditional=True, classes=3)
    x, c = noise(4, *net.shape), torch.rand(4).double()
    none = net(x, c)
    assert torch.allclose(net(x, c, torch.full((4,), 3)), none)
    for k in range(3):
        assert (net(x, c, torch.full((4,), k)) - none).abs().flatten(1).amax(1).min() > 1e-3
    mixed = net(x, c, torch.tensor([3, 0, 3, 2]))
    assert torch.allclose(mixed[::2], none[::2])
    plain = make(classes=3)
    assert plain.classes == 0
    assert torch.equal(plain(x, c), plain(x, c, torch.tensor([0, 1, 2, 0])))


@BOTH
def test_one_noise_level_for_all_is_that_level_for_each(make):
    net = make(conditional=True, classes=3, times=2)
    x, y = noise(4, *net.shape), torch.tensor([0, 3, 1, 2])
    c = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    for labels in (None, y):
        assert torch.allclose(net(x, c, labels), net(x, c.expand(4, 2), labels))
    assert not torch.allclose(net(x, c), net(x, c.flip(1))), "the two times are told apart"


@BOTH
def test_an_image_does_not_depend_on_the_batch(make):
    net = make()
    x, c = noise(3, *net.shape), torch.rand(3).double()
    assert torch.allclose(net(x, c)[1:2], net(x[1:2], c[1:2]))
    assert not torch.allclose(net(x, c), net(x, c.flip(0)))


@BOTH
def test_noise_levels_a_thousandth_apart_are_told_apart(make):
    net = make()
    x, c = noise(1, *net.shape), torch.tensor([0.5], dtype=torch.float64)
    assert (net(x, c + 1e-3) - net(x, c)).abs().max() > 1e-3 * net(x, c).abs().max()
    assert net(x, -1.5 * torch.ones_like(c)).isfinite().all()  # ln(σ)/4 of σ = 0.002


@BOTH
def test_the_gradient_reaches_every_parameter(make):
    net = make(conditional=True, classes=2, heads=2)
    net(noise(3, *net.shape), torch.rand(3).double(), torch.tensor([0, 1, 2])).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@BOTH
def test_forward_derivatives_equal_finite_differences(make, form):
    """Mean flow needs d u(x, r, t)/dt along (v, 0, 1), and the gradient of it."""
    net = make(times=2).to(memory_format=form)
    x, v, c = noise(2, *net.shape), noise(2, *net.shape, seed=1), torch.rand(2, 2).double()
    x, v = x.contiguous(memory_format=form), v.contiguous(memory_format=form)
    dc = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(2, 2)
    u, slope = jvp(lambda x, c: net(x, c), (x, c), (v, dc))
    h = 1e-6
    differences = (net(x + h * v, c + h * dc) - net(x - h * v, c - h * dc)) / (2 * h)
    assert torch.allclose(u, net(x, c))
    assert torch.allclose(slope, differences, rtol=1e-5, atol=1e-5 * differences.abs().max().item())
    slope.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.ndim > 1)


@BOTH
def test_forward_derivatives_under_autocast_are_close(make):
    net = make().float()
    x, v, c = noise(2, *net.shape).float(), noise(2, *net.shape, seed=1).float(), torch.tensor([0.2, 0.7])
    _, exact = jvp(lambda x: net(x, c), (x,), (v,))
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = jvp(lambda x: net(x, c), (x,), (v,))
    assert (rough - exact).norm() < 0.1 * exact.norm()


@BOTH
def test_under_autocast_the_result_is_close_and_in_the_type_of_the_images(make):
    net = make(conditional=True, classes=2).float()
    x, c, y = noise(3, *net.shape).float(), torch.rand(3), torch.tensor([0, 1, 2])
    exact = net(x, c, y)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, c, y)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_channels_last_changes_nothing():
    net = small().float()
    x, c = noise(2, *net.shape).float(), torch.rand(2)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), c)
    assert torch.allclose(net(x, c), last, atol=1e-5 * last.abs().max().item())


def test_dropout_acts_in_training_alone():
    net = small(dropout=0.5)
    x, c = noise(2, *net.shape), torch.rand(2).double()
    assert torch.equal(net(x, c), net(x, c))
    net.train()
    assert not torch.equal(net(x, c), net(x, c))


def test_all_blocks_have_the_same_weights_in_any_size():
    """The state dict does not depend on the size of the images, so that a net can be used on other sizes."""
    a, b = UNet(width=8, shape=(1, 8, 8)), UNet(width=8, shape=(1, 4, 8))
    assert {k: v.shape for k, v in a.state_dict().items()} == {k: v.shape for k, v in b.state_dict().items()}
    assert "level.frequencies" not in a.state_dict()


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (
            UNet,
            {"shape": (3, 37, 52)},
            "37×52 pixels do not allow; use images of 36×52 or 40×56, or at most 1 mults",
        ),
        (UNet, {"shape": (3, 30, 30)}, "use images of 28×28 or 32×32, or at most 2 mults"),
        (
            UNet,
            {"shape": (1, 28, 28), "mults": (1, 2, 2, 2)},
            "use images of 24×24 or 32×32, or at most 3 mults",
        ),
        (UNet, {"shape": (1, 28, 28), "width": 12}, "width is a multiple of 8; got 12"),
        (UNet, {"shape": (1, 28, 28), "mults": ()}, "mults=\\[\\] blocks=1"),
        (UNet, {"shape": (1, 28, 28), "blocks": 0}, "blocks=0"),
        (UNet, {"shape": (1, 28, 28), "dropout": 1.0}, "below 1, got 1"),
        (UNet, {"shape": (1, 28, 28), "heads": 0}, "heads=0"),
        (UNet, {"shape": (1, 28, 28), "finest": 0.1}, "from 1 to 1e6, got 0.1"),
        (UNet, {"shape": (1, 28, 28), "conditional": True}, "conditional=true needs data with class labels"),
        (MLP, {"shape": (1, 28, 28)}, "points of 16 numbers at most, not 784; use denoiser.UNet"),
        (MLP, {"shape": (2, 1, 1), "depth": 0}, "depth=0"),
    ],
)
def test_what_makes_no_net_is_refused_in_one_line(net: type[nn.Module], options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        net(**options)
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_times_is_refused():
    with pytest.raises(ValueError, match="takes 1 numbers c for each image, not 2"):
        small()(noise(2, 2, 8, 12), torch.rand(2, 2).double())


def test_the_finest_wave_bounds_the_derivative_by_the_noise_level() -> None:
    """A mean flow trains on this derivative; with waves of 1000 radians per unit it is that of noise."""

    def slope(finest: float) -> float:
        torch.manual_seed(0)
        net = MLP(width=32, shape=(2, 1, 1), finest=finest)
        torch.nn.init.normal_(net.last.weight, std=0.1)
        x, c = torch.randn(64, 2, 1, 1), torch.rand(64)
        return float(torch.func.jvp(lambda c: net(x, c), (c,), (torch.ones_like(c),))[1].detach().norm())

    assert slope(10) < 0.1 * slope(1000)
    with pytest.raises(ValueError, match="finest is a frequency from 1"):
        UNet(shape=(1, 28, 28), finest=0.0)


def test_a_unet_refuses_points_and_names_each_size_that_works_once() -> None:
    with pytest.raises(ValueError, match=r"these data are points; use denoiser\.MLP"):
        UNet(shape=(2, 1, 1))
    with pytest.raises(ValueError, match="use images of 4×4, or at most 1 mults"):
        UNet(shape=(1, 3, 3))
