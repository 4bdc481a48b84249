from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner.nets import dcgan, mlp, pacgan
from limner.nets._critic import Critic, MinibatchDiscrimination, MinibatchStd, rules
from limner.nets._layers import Maxout


def penalty(gradient: Tensor) -> Tensor:
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def differentiated_twice(D: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = D(x)
    return logits, torch.autograd.grad(logits.sum(), x, create_graph=True)[0]


def same(D: Critic, x: Tensor, tolerance: float = 1e-9) -> None:
    """Logits, gradient and the weights' gradients of a penalty and a loss: ours against double backward."""
    results = []
    for net, how in ((copy.deepcopy(D), Critic.input_gradient), (copy.deepcopy(D), differentiated_twice)):
        torch.manual_seed(0)
        logits, gradient = how(net, x)
        (penalty(gradient) + logits.square().mean()).backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
        results.append([logits, gradient, *grads])
    assert results[0][0].shape == (len(x) // D.pack,)
    assert results[0][1].shape == x.shape
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() < tolerance * max(1, theirs.abs().max())


# ---- the gradient at the input --------------------------------------------------------------------------------------

POINT, SMALL, DIGIT = (2, 1, 1), (2, 3, 4), (1, 28, 28)
WIDTHS = {"widths": (12, 8)}
PLAIN = {"width": 4, "norm": "none"}
Net = tuple[type[Critic], dict[str, Any], tuple[int, int, int]]
CHAINS: dict[str, Net] = {
    "mlp": (mlp.Discriminator, WIDTHS, SMALL),
    **{
        f"mlp {a}": (mlp.Discriminator, {**WIDTHS, "activation": a}, SMALL)
        for a in ("relu", "tanh", "sigmoid", "elu", "silu")
    },
    "mlp spectral": (mlp.Discriminator, {**WIDTHS, "spectral": True}, SMALL),
    "mlp pack": (mlp.Discriminator, {**WIDTHS, "pack": 2}, SMALL),
    "dcgan 28": (dcgan.Discriminator, PLAIN, DIGIT),
    "dcgan 32": (dcgan.Discriminator, PLAIN, (3, 32, 32)),
    "dcgan 37×53": (dcgan.Discriminator, PLAIN, (3, 37, 53)),
    "dcgan 19×31": (dcgan.Discriminator, PLAIN, (2, 19, 31)),
    "dcgan dropout": (dcgan.Discriminator, {**PLAIN, "dropout": 0.4}, (1, 16, 16)),
    "dcgan spectral": (dcgan.Discriminator, {**PLAIN, "spectral": True}, (3, 37, 53)),
    "dcgan pack": (dcgan.Discriminator, {**PLAIN, "pack": 2}, (3, 17, 16)),
    "dcgan TF 28": (dcgan.TFDiscriminator, {}, DIGIT),
    "dcgan TF 9×13": (dcgan.TFDiscriminator, {}, (2, 9, 13)),
    "pacgan": (pacgan.Discriminator, {"width": 10}, POINT),
    "pacgan pack": (pacgan.Discriminator, {"width": 10, "pack": 2}, POINT),
}
OTHERS: dict[str, Net] = {
    "mlp layer": (mlp.Discriminator, {**WIDTHS, "norm": "layer"}, SMALL),
    "mlp batch": (mlp.Discriminator, {**WIDTHS, "norm": "batch"}, SMALL),
    "mlp std": (mlp.Discriminator, {**WIDTHS, "minibatch": "std"}, SMALL),
    "mlp discrimination": (mlp.Discriminator, {**WIDTHS, "minibatch": "discrimination"}, SMALL),
    "dcgan layer": (dcgan.Discriminator, {"width": 4, "norm": "layer"}, (3, 16, 16)),
    "dcgan instance": (dcgan.Discriminator, {"width": 4, "norm": "instance"}, (3, 16, 16)),
    "dcgan std": (dcgan.Discriminator, {**PLAIN, "minibatch": "std", "spectral": True}, (3, 16, 16)),
    "stacked pack": (pacgan.StackedDiscriminator, {"width": 4, "pack": 2}, (3, 17, 16)),
}


def build(name: str) -> tuple[Critic, Tensor]:
    """In float64, with biases that are not 0 and weights large enough to matter; and 4 images for it."""
    cls, options, shape = {**CHAINS, **OTHERS}[name]
    torch.manual_seed(0)
    D = cls(**options, shape=shape).double()
    with torch.no_grad():
        for p in D.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return D, torch.randn(4, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", CHAINS)
def test_the_gradient_by_rules_is_autograds(name):
    D, x = build(name)
    assert rules(D.layers()) is not None
    same(D, x)


@pytest.mark.parametrize("name", OTHERS)
def test_other_nets_are_differentiated_twice(name):
    D, x = build(name)
    assert rules(D.layers()) is None
    same(D, x)


def test_the_gradient_in_channels_last():
    D, x = build("dcgan 37×53")
    same(D.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last))


def test_every_kind_of_chain_in_evaluation_mode():
    for name in ("dcgan dropout", "dcgan spectral", "mlp batch"):
        D, x = build(name)
        same(D.eval(), x)


def test_the_gradient_of_a_class():
    D = mlp.Discriminator((8,), conditional=True, pack=2, shape=SMALL, classes=3).double()
    x, y = torch.randn(4, *SMALL, dtype=torch.float64, requires_grad=True), torch.tensor([0, 2, 1, 1])
    logits, gradient = D.input_gradient(x.detach(), y)
    assert torch.allclose(logits, D(x, y))
    assert torch.allclose(gradient, torch.autograd.grad(D(x, y).sum(), x)[0])


@pytest.mark.parametrize("n", [1, 5])
def test_a_linear_critic_has_its_weights_as_gradient(n):
    D = mlp.Discriminator((), shape=SMALL).double()
    logits, gradient = D.input_gradient(torch.randn(n, *SMALL, dtype=torch.float64))
    assert torch.equal(gradient, D.head.weight.view(1, *SMALL).expand_as(gradient))
    assert torch.isclose(penalty(gradient), (D.head.weight.norm() - 1).square())
    assert logits.shape == (n,)


@pytest.mark.parametrize("name", ["dcgan pack", "dcgan instance"])
def test_the_gradient_needs_no_graph_without_grad_mode(name):
    D, x = build(name)
    with torch.no_grad():
        logits, gradient = D.input_gradient(x)
    assert not logits.requires_grad
    assert not gradient.requires_grad
    assert torch.allclose(gradient, differentiated_twice(D, x)[1])


@pytest.mark.parametrize("name", ["mlp tanh", "dcgan 37×53", "pacgan pack"])
def test_the_gradient_under_mixed_precision(name):
    D, x = build(name)
    exact = D.input_gradient(x)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = D.float().input_gradient(x.float())[1]
    assert rough.dtype == torch.float32
    penalty(rough).backward()
    assert (rough - exact).norm() < 0.1 * exact.norm()


def test_the_gradient_is_one_graph():
    D, x = build("dcgan pack")
    compiled = torch.compile(D.input_gradient, backend="eager", fullgraph=True)
    assert all(torch.equal(a, b) for a, b in zip(compiled(x), D.input_gradient(x), strict=True))


def test_maxout_is_the_largest_of_its_pieces():
    x = torch.tensor([[1.0, 3.0, 2.0, -1.0, -3.0, -2.0]])
    assert torch.equal(Maxout(3)(x), torch.tensor([[3.0, -1.0]]))


# ---- spectral norm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minibatch", ["none", "discrimination"])
def test_spectral_norm_makes_every_largest_singular_value_1(minibatch):
    torch.manual_seed(0)
    options: dict[str, Any] = {"spectral": True, "minibatch": minibatch}
    for D in (
        dcgan.Discriminator(8, "none", shape=(3, 16, 16), **options),
        mlp.Discriminator((24, 16), shape=SMALL, **options),
    ):
        x = torch.randn(4, *(SMALL if isinstance(D, mlp.Discriminator) else (3, 16, 16)))
        for _ in range(100):  # each training pass takes one power step
            D(x)
        weights = [m.weight for m in D.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        assert len(weights) == 3 + (minibatch == "discrimination")
        for w in weights:
            assert torch.linalg.matrix_norm(w.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


def test_spectral_norm_bounds_the_slope_of_a_perceptron():
    torch.manual_seed(0)
    D = mlp.Discriminator((64, 64), spectral=True, shape=SMALL)
    x = torch.randn(50, *SMALL)
    for _ in range(100):
        D(x)
    with torch.no_grad():
        assert D.input_gradient(x)[1].flatten(1).norm(dim=1).max() < 1.01


def test_a_spectral_net_learns_and_is_saved():
    D = dcgan.Discriminator(4, "none", spectral=True, shape=(1, 16, 16))
    x = torch.randn(2, 1, 16, 16)
    D(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in D.parameters())
    other = dcgan.Discriminator(4, "none", spectral=True, shape=(1, 16, 16))
    other.load_state_dict(D.state_dict())
    assert torch.equal(other.eval()(x), D.eval()(x))
    assert torch.equal(copy.deepcopy(D)(x), D(x))


# ---- features of the batch ------------------------------------------------------------------------------------------


def test_minibatch_discrimination_is_the_papers_formula():
    torch.manual_seed(0)
    M = torch.randn(5, 3, 4, dtype=torch.float64)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for i in range(5):
        for b in range(3):
            for j in range(5):
                expected[i, b] += math.exp(-sum(abs(float(M[i, b, c] - M[j, b, c])) for c in range(4)))
    assert torch.allclose(MinibatchDiscrimination.closeness(M), expected, rtol=1e-12)


def test_minibatch_discrimination_appends_closeness_to_features_and_maps():
    layer = MinibatchDiscrimination(2 * 3 * 3, spaces=4, dimension=5).double()
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    M = (x.flatten(1) @ layer.T.weight.T).view(6, 4, 5)
    o = MinibatchDiscrimination.closeness(M) / 6
    assert torch.equal(layer(x)[:, :2], x)
    assert torch.allclose(layer(x)[:, 2:], o[:, :, None, None].expand(-1, -1, 3, 3))
    assert torch.allclose(layer(x.flatten(1)), torch.cat([x.flatten(1), o], 1))
    alike = layer(x[:1].expand(6, -1, -1, -1))
    assert torch.allclose(alike[:, 2:], torch.ones(()).double())  # as close as can be
    assert layer(x)[:, 2:].max() < 1


def test_the_order_of_the_batch_does_not_matter_to_minibatch_discrimination():
    layer = MinibatchDiscrimination(7).double()
    x, order = torch.randn(5, 7, dtype=torch.float64), torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(layer(x[order]), layer(x)[order])


def test_minibatch_std_is_the_mean_deviation_of_each_group():
    x = torch.randn(8, 2, 3, 5, dtype=torch.float64)
    recorded = MinibatchStd()(x)
    assert recorded.shape == (8, 3, 3, 5)
    assert torch.equal(recorded[:, :2], x)
    for group in (slice(0, 4), slice(4, 8)):
        expected = x[group].std(0, correction=0).mean()
        assert torch.allclose(recorded[group, 2], expected, atol=1e-7)
    assert torch.allclose(MinibatchStd()(x.flatten(1))[:, -1], recorded[:, 2, 0, 0])


def test_minibatch_std_of_images_that_are_alike_is_0():
    x = torch.randn(1, 6, dtype=torch.float64).expand(4, -1).clone().requires_grad_()
    std = MinibatchStd()(x)[:, -1]
    assert torch.allclose(std, torch.zeros(()).double(), atol=1.001e-4)  # the root of 1e-8
    std.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("n", "group"), [(2, 2), (3, 3), (4, 4), (5, 5), (6, 3), (7, 7), (8, 4), (10, 2), (12, 4)])
def test_the_groups_of_minibatch_std(n, group):
    x = torch.randn(n, 3, dtype=torch.float64)
    std = MinibatchStd()(x)[:, -1]
    for i in range(n):
        first = i - i % group
        assert torch.allclose(std[i], x[first : first + group].std(0, correction=0).mean(), atol=1e-6)


def test_minibatch_std_of_two_batches_at_once_is_that_of_each():
    D = dcgan.Discriminator(4, "none", minibatch="std", shape=(1, 16, 16)).double()
    real, fake = torch.randn(2, 8, 1, 16, 16, dtype=torch.float64)
    assert torch.allclose(D(torch.cat([real, fake])), torch.cat([D(real), D(fake)]))


@pytest.mark.parametrize("minibatch", ["std", "discrimination"])
def test_only_features_of_the_batch_depend_on_the_rest_of_it(minibatch):
    torch.manual_seed(0)
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    changed = torch.cat([x[:1], 3 * x[1:]])
    for D in (dcgan.Discriminator(8, "none", shape=(1, 16, 16)), mlp.Discriminator(shape=(1, 16, 16))):
        assert torch.allclose(D.double()(x)[0], D(changed)[0], atol=1e-12)
        assert not D.mixes
    for D in (
        dcgan.Discriminator(8, "none", minibatch=minibatch, shape=(1, 16, 16)),
        mlp.Discriminator(minibatch=minibatch, shape=(1, 16, 16)),
    ):
        assert (D.double()(x)[0] - D(changed)[0]).abs() > 1e-6
        assert D.mixes


@pytest.mark.parametrize("minibatch", ["std", "discrimination"])
def test_every_weight_of_a_net_with_features_of_the_batch_learns(minibatch):
    torch.manual_seed(0)
    for D in (
        dcgan.Discriminator(8, minibatch=minibatch, shape=(1, 16, 16)),
        mlp.Discriminator(minibatch=minibatch, shape=(1, 16, 16)),
    ):
        D(torch.randn(4, 1, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in D.parameters())


# ---- packing --------------------------------------------------------------------------------------------------------


def test_packing_is_stacking_neighbours_along_the_channels():
    x = torch.randn(6, 3, 16, 16)
    pairs = torch.stack([torch.cat([x[2 * i], x[2 * i + 1]]) for i in range(3)])  # (3,6,16,16)
    D = dcgan.Discriminator(8, "none", pack=2, shape=(3, 16, 16))
    assert torch.allclose(D(x), D.net(pairs).flatten(), atol=1e-6)
    assert D.net[0].in_channels == 6
    M = mlp.Discriminator(pack=3, shape=(3, 16, 16))
    assert torch.allclose(M(x), M.head(M.hidden[0](x.view(2, -1))).flatten(), atol=1e-6)


@pytest.mark.parametrize("cls", [dcgan.Discriminator, mlp.Discriminator, pacgan.Discriminator])
def test_packing_changes_the_first_layer_only(cls):
    one, three = (cls(pack=m, shape=(1, 16, 16)) for m in (1, 3))
    grown = [k for k, p in one.named_parameters() if p.shape != three.get_parameter(k).shape]
    first = next(m for m in one.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    assert [one.get_parameter(k) is first.weight for k in grown] == [True]
    assert three.get_parameter(grown[0]).numel() == 3 * first.weight.numel()


def test_a_pack_of_one_image_twice_is_not_two_images():
    D = dcgan.Discriminator(8, "none", pack=2, shape=(1, 16, 16)).double()
    a, b = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    logits = D(torch.stack([a, b, a, a]))
    assert logits.shape == (2,)
    assert logits[0] != logits[1]


# ---- batches that mean nothing --------------------------------------------------------------------------------------


def test_a_pack_must_divide_the_batch():
    D = dcgan.Discriminator(4, pack=2, shape=(1, 16, 16))
    D.check_batch(64)
    with pytest.raises(ValueError, match="does not divide a batch of 5") as error:
        D.check_batch(5)
    assert "multiple of 2" in str(error.value)
    with pytest.raises(ValueError, match="does not divide a batch of 5"):
        D(torch.zeros(5, 1, 16, 16))
    for cls in (dcgan.Discriminator, mlp.Discriminator, pacgan.Discriminator, pacgan.StackedDiscriminator):
        with pytest.raises(ValueError, match="1 or more; got 0"):
            cls(pack=0, shape=(1, 16, 16))


@pytest.mark.parametrize("minibatch", ["std", "discrimination"])
def test_features_of_the_batch_need_two_inputs(minibatch):
    for pack in (1, 2):
        for D in (
            dcgan.Discriminator(4, "none", minibatch=minibatch, pack=pack, shape=(1, 16, 16)),
            mlp.Discriminator(minibatch=minibatch, pack=pack, shape=(1, 16, 16)),
        ):
            D.check_batch(2 * pack)
            with pytest.raises(ValueError, match=f"batches of {2 * pack} images or more"):
                D.check_batch(pack)


def test_single_images_are_refused_where_batch_norm_would_fail():
    mlp.Discriminator(shape=SMALL).check_batch(1)
    dcgan.Discriminator(4, shape=(1, 16, 16)).check_batch(1)  # its maps have pixels to compare
    for net in (
        mlp.Discriminator(norm="batch", shape=SMALL),
        mlp.Decoder(4, norm="batch", shape=SMALL),
        pacgan.Generator(shape=POINT),
        dcgan.TFGenerator(shape=DIGIT),
    ):
        net.check_batch(2)
        with pytest.raises(ValueError, match="batches of 2"):
            net.check_batch(1)
        z = torch.randn(1, *(SMALL if isinstance(net, mlp.Discriminator) else net.code_shape))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(z)
