"""Rational-quadratic splines, and the flows that are made of them."""

from __future__ import annotations

import pytest
import torch
from zuko.transforms import MonotonicRQSTransform

from limner.nets import protocols
from limner.nets.spline import Autoregressive, Coupling, Images, Knots, knots, rational_quadratic

FLOWS = [Coupling, Autoregressive]


def random_knots(n: int, bins: int = 8, bound: float = 3.0) -> Knots:
    g = torch.Generator().manual_seed(0)
    return knots(2 * torch.randn(n, 3 * bins - 1, generator=g, dtype=torch.float64), bound)


def points(n: int) -> torch.Tensor:
    return 2 * torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def moved(flow: protocols.Flow, by: float = 0.1) -> protocols.Flow:
    """The flow in float64, with all its weights away from where they begin."""
    g = torch.Generator().manual_seed(2)
    flow = flow.double()
    for p in flow.parameters():
        p.data += by * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return flow


def test_splines_are_those_of_zuko_between_the_same_knots() -> None:
    g = torch.Generator().manual_seed(0)
    raw = (2 * torch.randn(1000, n, generator=g, dtype=torch.float64) for n in (8, 8, 7))
    theirs = MonotonicRQSTransform(*raw, bound=3.0)
    ours = Knots(theirs.horizontal, theirs.vertical, theirs.derivatives)
    x = points(1000)
    y, log_slope = rational_quadratic(x, ours)
    expected, expected_log_slope = theirs.call_and_ladj(x)
    assert ((x.abs() > 3) & (y == x)).any(), "some points are beyond the knots"
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_slope, expected_log_slope, rtol=0, atol=1e-11)
    torch.testing.assert_close(rational_quadratic(y, ours, inverse=True)[0], theirs.inv(y), rtol=0, atol=1e-10)


def test_a_spline_goes_through_its_knots_with_their_slopes() -> None:
    k = random_knots(5)
    for i in range(9):
        y, log_slope = rational_quadratic(k.x[:, i], k)
        torch.testing.assert_close(y, k.y[:, i], rtol=0, atol=1e-12)
        torch.testing.assert_close(log_slope.exp(), k.slopes[:, i], rtol=1e-9, atol=0)


def test_knots_fill_the_box_and_zeros_are_the_identity() -> None:
    k = random_knots(100)
    for part in (k.x, k.y):
        assert (part.diff(dim=1) > 0).all()
        assert (part[:, 0] == -3).all()
        assert (part[:, -1] == 3).all()
    assert (k.slopes[:, [0, -1]] == 1).all(), "so that the slope does not jump where the tails begin"
    x = points(100)
    y, log_slope = rational_quadratic(x, knots(torch.zeros(100, 23, dtype=torch.float64), 3.0))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_log_slope_is_that_of_autograd(inverse: bool) -> None:
    k, x = random_knots(500), points(500).requires_grad_()
    y, log_slope = rational_quadratic(x, k, inverse)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-9)


def test_gradients_reach_knots_and_points_and_are_finite_in_the_tails() -> None:
    raw = torch.randn(3, 11, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    x = torch.tensor([-0.7, 0.1, 1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda raw, x: rational_quadratic(x, knots(raw, 2.0)), (raw, x))
    assert torch.autograd.gradcheck(lambda raw, x: rational_quadratic(x, knots(raw, 2.0), inverse=True), (raw, x))
    far = torch.tensor([-1e9, 5.0, 1e30], dtype=torch.float64, requires_grad=True)
    y, log_slope = rational_quadratic(far, knots(raw, 2.0))
    (y.sum() + log_slope.sum()).backward()
    assert torch.equal(far.grad, torch.ones(3, dtype=torch.float64))
    assert torch.equal(raw.grad, torch.zeros_like(raw))


def test_the_inverse_is_finite_where_rounding_makes_the_root_negative() -> None:
    g = torch.Generator().manual_seed(0)
    k = knots(5 * torch.randn(50_000, 23, generator=g), 3.0)
    assert k.x.dtype == torch.float32
    y = k.y[:, 1:-1].gather(1, torch.randint(7, (50_000, 1), generator=g)).squeeze(1)  # at the knots
    x, log_slope = rational_quadratic(y, k, inverse=True)
    assert x.isfinite().all()
    assert log_slope.isfinite().all()


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("shape", "conditional"), [((1, 1, 1), False), ((1, 1, 1), True), ((3, 1, 1), False), ((2, 2, 2), True)]
)
def test_the_log_determinant_is_that_of_autograds_jacobian(
    flow: type, shape: tuple[int, int, int], conditional: bool
) -> None:
    net = moved(flow(conditional=conditional, shape=shape, classes=3))
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 2]) if conditional else None
    net.warm_up(1 + 3 * x)
    z, log_det = net(x, y)
    assert log_det.shape == (4,)
    for i in range(4):
        label = None if y is None else y[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, label=label: net(x, label)[0][0], x[i : i + 1])
        expected = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        assert abs(float((log_det[i] - expected).detach())) < 1e-10
    torch.testing.assert_close(net.inverse(z, y), x, rtol=0, atol=1e-10)
    if conditional:
        assert not torch.equal(net(x, torch.tensor([1, 2, 0, 0]))[0], z)


@pytest.mark.parametrize("flow", FLOWS)
def test_float32_goes_there_and_back_to_1e_5(flow: type) -> None:
    net = moved(flow(shape=(2, 1, 1)), 0.07).float()
    x = torch.randn(2000, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    z, log_det = net(x)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(net.inverse(z), x, rtol=0, atol=1e-5)


def test_numbers_of_an_autoregressive_layer_depend_on_those_before() -> None:
    net = moved(Autoregressive(steps=1, widths=(6, 7), activation="elu", shape=(6, 1, 1)), 0.5)
    layer = net.splines[0]
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x, None)[0][0], x)[:, 0]
    assert torch.equal(jacobian.triu(1), torch.zeros(6, 6, dtype=torch.float64))
    assert (jacobian.diagonal() > 0).all()
    assert (jacobian.tril(-1) != 0).sum() == 6 * 5 / 2


@pytest.mark.parametrize("flow", FLOWS)
def test_a_new_flow_standardises_the_first_batch_and_no_other(flow: type) -> None:
    net = flow(shape=(2, 1, 1))
    x = torch.tensor([5.0, -2.0])[:, None, None] + torch.tensor([0.1, 7.0])[:, None, None] * torch.randn(500, 2, 1, 1)
    net.warm_up(x)
    z, _ = net(x)
    assert (z.mean(0).abs() < 1e-4).all()
    std = z.std(0, unbiased=False).sort().values
    torch.testing.assert_close(std, torch.tensor([0.1 / 7 * 20, 1.0]), rtol=0.2, atol=0)  # at least a twentieth
    before = net.std.clone()
    net.warm_up(3 * x)
    assert torch.equal(net.std, before)
    again = flow(shape=(2, 1, 1))
    again.load_state_dict(net.state_dict())
    again.warm_up(3 * x)
    assert torch.equal(again.std, before), "a loaded flow is not set again"


def test_ranks_set_the_same_moments() -> None:
    x = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    whole, half = Coupling(shape=(2, 1, 1)), Coupling(shape=(2, 1, 1))
    whole.warm_up(x)
    other = torch.stack([x[32:].double().flatten(1).mean(0), x[32:].double().flatten(1).square().mean(0)])
    half.warm_up(x[:32], mean=lambda moments: (moments + other) / 2)
    torch.testing.assert_close(half.std, whole.std)
    torch.testing.assert_close(half.mean, whole.mean)


def test_log_determinants_are_float32_in_low_precision() -> None:
    net = moved(Coupling(shape=(2, 1, 1))).float()
    x = torch.randn(16, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = net(x)
        back = net.inverse(z)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)  # the knots are rounded alike in both directions


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("bad", [{"steps": 0}, {"bins": 1}, {"bins": 1000}, {"bound": 0.0}, {"widths": (0,)}])
def test_impossible_numbers_are_refused(flow: type, bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a spline flow needs"):
        flow(**bad, shape=(2, 1, 1))


@pytest.mark.parametrize("classes", [0, 3])
def test_a_flow_of_images_has_the_jacobian_of_autograd_and_an_inverse(classes: int) -> None:
    torch.manual_seed(0)
    net = Images(width=4, steps=2, levels=2, conditional=classes > 0, shape=(1, 4, 4), classes=classes).double()
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(8) % 3 if classes else None
    net.warm_up(x, y)
    moved(net, 0.05)
    z, log_det = net(x, y)
    for i in range(2):
        label = None if y is None else y[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, label=label: net(x, label)[0][0], x[i : i + 1])
        expected = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        assert abs(float((log_det[i] - expected).detach())) < 1e-9
    torch.testing.assert_close(net.inverse(z, y), x, rtol=0, atol=1e-9)


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        Images(shape=(1, 30, 30))
    with pytest.raises(ValueError, match=r"use spline\.Images with images"):
        Images(shape=(2, 1, 1))
