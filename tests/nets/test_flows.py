"""Facts of flows: the log-determinant is that of autograd's Jacobian, the inverse inverts, a batch is set once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from limner.losses import dequantise
from limner.nets import _flow, glow, real_nvp
from limner.nets.protocols import Flow

IMAGE, POINT = (1, 4, 4), (3, 1, 1)

FLOWS: dict[str, Callable[[], Flow]] = {
    "glow": lambda: glow.Flow(width=8, steps=2, levels=2, shape=IMAGE),
    "glow, colour": lambda: glow.Flow(width=8, steps=1, levels=1, pixels="logit", shape=(3, 2, 2)),
    "glow, marginal": lambda: glow.Flow(width=8, steps=2, levels=1, pixels="marginal", shape=IMAGE),
    "glow, classes": lambda: glow.Flow(width=8, steps=2, levels=2, conditional=True, shape=IMAGE, classes=3),
    "real nvp": lambda: real_nvp.Flow(width=4, blocks=1, levels=2, shape=IMAGE),
    "real nvp, odd": lambda: real_nvp.Flow(width=4, blocks=1, levels=1, pixels="marginal", shape=(1, 3, 5)),
    "real nvp, classes": lambda: real_nvp.Flow(width=4, conditional=True, shape=IMAGE, classes=3),
    "points": lambda: real_nvp.PointFlow(couplings=4, widths=(8,), shape=POINT),
    "points, classes": lambda: real_nvp.PointFlow(couplings=4, widths=(8,), conditional=True, shape=POINT, classes=3),
}


def data(shape: tuple[int, int, int], n: int = 4) -> Tensor:
    """Points, or dequantised images that are mostly dark; float64."""
    x = torch.randn(n, *shape, dtype=torch.float64)
    if shape[1:] == (1, 1):
        return 3 * x + 1
    levels = (30 * x.abs()).clamp(0, 255).round()
    return dequantise.uniform(levels / 127.5 - 1, torch.rand(n, *shape, dtype=torch.float64))


def labels(flow: Flow, n: int) -> Tensor | None:
    return torch.arange(n) % flow.classes if flow.classes else None


@pytest.fixture(params=FLOWS)
def flow(request: pytest.FixtureRequest) -> Flow:
    """A flow in float64 that was set by a batch and then moved away from everything that begins with zeros."""
    torch.manual_seed(0)
    flow = FLOWS[request.param]().double()
    flow.warm_up(data(flow.shape, 64), labels(flow, 64))
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn_like(p)
    return flow


def test_the_log_determinant_is_that_of_the_jacobian_with_its_sign(flow: Flow) -> None:
    x = data(flow.shape)
    y = labels(flow, len(x))
    z, logdet = flow(x, y)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x, y)[0].sum(0), x)  # (D,B,C,H,W): samples are apart
    exact = torch.linalg.slogdet(jacobian.transpose(0, 1).flatten(2)).logabsdet
    torch.testing.assert_close(logdet, exact, atol=1e-9, rtol=0)
    assert logdet.abs().min() > 0.1, "a wrong sign would show"
    assert z.shape == (len(x), math.prod(flow.shape))
    low = copy.deepcopy(flow).float()(x.float(), y)
    torch.testing.assert_close(low[1].double(), exact, atol=1e-4, rtol=1e-5)


def test_the_inverse_inverts(flow: Flow) -> None:
    x = data(flow.shape)
    y = labels(flow, len(x))
    torch.testing.assert_close(flow.inverse(flow(x, y)[0], y), x, atol=1e-9, rtol=0)
    z = 0.2 * torch.randn(4, math.prod(flow.shape), dtype=torch.float64)
    torch.testing.assert_close(flow(flow.inverse(z, y), y)[0], z, atol=1e-6, rtol=0)
    low, x32 = copy.deepcopy(flow).float(), x.float()
    torch.testing.assert_close(low.inverse(low(x32, y)[0], y), x32, atol=2e-5, rtol=0)


def test_samples_do_not_mix(flow: Flow) -> None:
    x = data(flow.shape)
    y = labels(flow, len(x))
    for whole, part in zip(flow(x, y), flow(x[1:2], None if y is None else y[1:2])):
        torch.testing.assert_close(whole[1:2], part)


def test_every_parameter_takes_part(flow: Flow) -> None:
    x = data(flow.shape, 8)
    z, logdet = flow(x, labels(flow, 8))
    (0.5 * z.square().sum(1) - logdet).mean().backward()
    for name, p in flow.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


def test_log_determinants_are_float32_under_autocast(flow: Flow) -> None:
    """Couplings compute in bfloat16; what is summed over pixels does not."""
    flow, x = flow.float(), data(flow.shape).float()
    y = labels(flow, len(x))
    z, logdet = flow(x, y)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low, low_logdet = flow(x, y)
        assert low.dtype == low_logdet.dtype == torch.float32
        assert flow.inverse(low, y).dtype == torch.float32
    assert not torch.equal(low, z), "the nets inside compute in bfloat16"
    torch.testing.assert_close(low_logdet, logdet, atol=0.5, rtol=0.02)


@pytest.mark.parametrize("name", FLOWS)
def test_a_new_flow_is_set_by_its_first_batch_alone(name: str) -> None:
    """Neither a pass, nor an inverse, nor a second batch, nor a flow that was loaded sets anything again."""
    torch.manual_seed(0)
    flow = FLOWS[name]()
    x = data(flow.shape, 32).float()
    y = labels(flow, 32)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    flow.train()
    z = flow(x, y)[0]
    flow.inverse(z, y)
    flow.eval()(x, y)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    flow.warm_up(x, y)
    after = {k: v.clone() for k, v in flow.state_dict().items()}
    loaded = FLOWS[name]()
    loaded.load_state_dict(after)
    for each in (flow, loaded):
        each.warm_up(2 * x.abs() - 1, y)
        assert all(torch.equal(v, after[k]) for k, v in each.state_dict().items())


def test_the_first_batch_leaves_activation_norms_with_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    flow = glow.Flow(width=8, steps=3, levels=2, shape=(3, 8, 8))
    x = data((3, 8, 8), 64).float()
    outputs: list[Tensor] = []
    for m in flow.modules():
        if isinstance(m, _flow.ActNorm):
            m.register_forward_hook(lambda m, given, out: outputs.append(out[0]))
    flow.warm_up(x)
    outputs.clear()
    flow(x)
    assert len(outputs) == 6
    for out in outputs:
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(out.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(out.shape[1]), atol=1e-3, rtol=0)


def test_two_ranks_with_half_a_batch_each_are_set_like_one_with_the_whole() -> None:
    """Moments are averaged, not deviations: halves that differ show it."""
    x = torch.cat([torch.randn(8, 2, 3, 3), 4 + 3 * torch.randn(8, 2, 3, 3)])
    for kind in (_flow.ActNorm, _flow.Marginal):
        x = x.clamp(-1, 1) if kind is _flow.Marginal else x
        whole, first, second = kind(2), kind(2), kind(2)
        seen: list[Tensor] = []
        with torch.no_grad():
            whole.warm_up(x, None, lambda t: t)
            second.warm_up(x[8:], None, lambda t, seen=seen: (seen.append(t), t)[1])
            first.warm_up(x[:8], None, lambda t, seen=seen: (t + seen[0]) / 2)
            torch.testing.assert_close(first(x)[0], whole(x)[0], atol=1e-5, rtol=1e-5)
            assert not torch.allclose(second(x)[0], whole(x)[0], atol=1e-2)


def test_a_channel_without_variance_stays_finite() -> None:
    norm = _flow.ActNorm(2)
    x = torch.stack([torch.full((4, 3, 3), 0.7), torch.randn(4, 3, 3)], 1)
    with torch.no_grad():
        norm.warm_up(x, None, lambda t: t)
    z, logdet = norm(x)
    assert z.isfinite().all()
    assert logdet.isfinite().all()
    torch.testing.assert_close(norm.inverse(z), x)


def test_a_convolution_begins_as_a_rotation_and_keeps_its_factors() -> None:
    torch.manual_seed(0)
    conv = _flow.InvertibleConv(12)
    lower, upper = conv.factors()
    weight = (lower @ upper)[conv.permutation]
    torch.testing.assert_close(weight @ weight.T, torch.eye(12), atol=1e-5, rtol=0)
    with torch.no_grad():
        for p in conv.parameters():
            p += 0.3 * torch.randn_like(p)  # also where L and U are zero
    lower, upper = conv.factors()
    assert torch.equal(lower, lower.tril())
    assert torch.equal(upper, upper.triu())
    weight = (lower @ upper)[conv.permutation].double()
    x = torch.randn(2, 12, 3, 5)
    z, logdet = conv(x)
    torch.testing.assert_close(z.double(), torch.einsum("ij,bjhw->bihw", weight, x.double()), atol=1e-4, rtol=0)
    expected = 3 * 5 * torch.linalg.slogdet(weight).logabsdet
    torch.testing.assert_close(logdet.double(), expected.expand(2), atol=1e-4, rtol=0)


def test_a_large_convolution_is_inverted_to_1e_5_in_float32() -> None:
    torch.manual_seed(0)
    conv = _flow.InvertibleConv(96)
    x = torch.randn(2, 96, 4, 4)
    torch.testing.assert_close(conv.inverse(conv(x)[0]), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["linear", "logit", "marginal"])
def test_uniform_images_have_8_bits(name: str) -> None:
    """Whatever the map of pixels: the density of all images being alike, its log in bits is that of 256 levels."""
    pixels = _flow.pixel_map(name, 1).double()
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    x = dequantise.uniform(levels / 127.5 - 1, torch.rand(64, 1, 16, 16, dtype=torch.float64))
    z, logdet = pixels(x)
    if name == "marginal":  # a new one has levels that are all alike
        log_p = logdet - 0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        torch.testing.assert_close(dequantise.bits_per_dim(log_p, 256), torch.full((64,), 8.0, dtype=torch.float64))
    elif name == "logit":  # z has the logistic density, cut at both ends
        log_p = (
            logdet - (nn.functional.softplus(z) + nn.functional.softplus(-z)).flatten(1).sum(1) - 256 * math.log(0.9)
        )
        torch.testing.assert_close(dequantise.bits_per_dim(log_p, 256), torch.full((64,), 8.0, dtype=torch.float64))
    else:
        assert torch.equal(z, x)
        assert torch.equal(logdet, torch.zeros(64, dtype=torch.float64))
    torch.testing.assert_close(pixels.inverse(z), x, atol=1e-9, rtol=0)


def test_pixels_of_a_known_distribution_become_standard_normal() -> None:
    torch.manual_seed(0)
    levels = torch.multinomial(torch.tensor([0.7, 0.0, 0.1, 0.2]), 64 * 64, replacement=True).view(16, 1, 16, 16) * 80.0
    x = dequantise.uniform(levels / 127.5 - 1, torch.rand(16, 1, 16, 16))
    pixels = _flow.Marginal(1)
    with torch.no_grad():
        pixels.warm_up(x, None, lambda t: t)
        z, logdet = pixels(x)
    assert abs(float(z.mean())) < 0.05
    assert abs(float(z.std()) - 1) < 0.05
    log_p = logdet - 0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    entropy = -sum(p * math.log2(p) for p in (0.7, 0.1, 0.2))
    assert float(dequantise.bits_per_dim(log_p, 256).mean()) == pytest.approx(entropy, abs=0.15)


def test_any_code_gives_pixels_between_black_and_white() -> None:
    z = torch.tensor([-60.0, -7.0, 0.0, 7.0, 60.0]).view(1, 1, 1, 5)
    for name in ("logit", "marginal"):
        x = _flow.pixel_map(name, 1).inverse(z)
        assert x.isfinite().all()
        beyond = 1 / 255 if name == "marginal" else 0.12  # logit: a = 0.05 on each side of the range
        assert float(x.detach().abs().max()) <= 1 + beyond + 1e-6


def test_a_coupling_keeps_its_half_and_bounds_its_scale() -> None:
    torch.manual_seed(0)
    net = real_nvp.Flow(width=4, levels=2, shape=(1, 6, 6)).checkers[0].maps[0]
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 30)
    x = torch.randn(5, 1, 6, 6)
    z, logdet = net(x)
    board = net.mask.bool().expand_as(x)
    assert torch.equal(z[board], x[board])
    assert bool((z[~board] != x[~board]).all())
    assert board.float().mean() == 0.5
    assert float(logdet.detach().abs().max()) <= 18 * 2 + 1e-4  # a = 2 for each entry that changes
    s = glow.Flow(width=4, steps=1, levels=1, shape=(1, 4, 4)).scales[0].maps[0].maps[2]
    with torch.no_grad():
        for p in s.parameters():
            p.normal_(0, 30)
    assert bool((s.scale_and_shift(torch.randn(9, 2, 2, 2), None)[0] <= 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: glow.Flow(levels=3, shape=(1, 28, 28)), "28×28 cannot be halved 3 times; .*size=32, or fewer"),
        (lambda: glow.Flow(levels=2, shape=(1, 30, 28)), "30×28 cannot be halved 2 times; use sides that 4 divides"),
        (lambda: glow.Flow(shape=(2, 1, 1)), "points, not images"),
        (lambda: real_nvp.Flow(levels=4, shape=(1, 28, 28)), "cannot be halved 3 times"),
        (lambda: real_nvp.Flow(shape=(2, 1, 1)), "points, not images"),
        (lambda: real_nvp.PointFlow(shape=(1, 8, 8)), "images of 8×8, not points"),
        (lambda: real_nvp.PointFlow(shape=(1, 1, 1)), "at least 2 numbers"),
        (lambda: real_nvp.PointFlow(couplings=0, shape=(2, 1, 1)), "at least 1 coupling"),
        (lambda: glow.Flow(steps=0, shape=(1, 28, 28)), "at least 1, got 128, 0 and 2"),
        (lambda: glow.Flow(conditional=True, shape=(1, 28, 28)), "needs data with class labels"),
        (lambda: _flow.pixel_map("log", 1), "choose from: linear, logit, marginal"),
    ],
)
def test_what_cannot_be_is_one_clear_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_conditional_flow_needs_classes_and_uses_them() -> None:
    torch.manual_seed(0)
    for make in (FLOWS["glow, classes"], FLOWS["real nvp, classes"], FLOWS["points, classes"]):
        flow = make()
        x = data(flow.shape).float()
        with pytest.raises(ValueError, match="give the label y of every sample"):
            flow(x)
        with torch.no_grad():
            for p in flow.parameters():
                p += 0.2 * torch.randn_like(p)
        a, b = (flow(x, torch.full((4,), k))[0] for k in (0, 2))
        assert not torch.allclose(a, b)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\), got \(1, 8, 8\)"):
        FLOWS["glow"]()(torch.zeros(1, 1, 8, 8))
