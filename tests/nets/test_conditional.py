"""Facts of nets that take labels: how a label enters, and the gradient at the image of a conditional D."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.core.errors import LimnerError
from limner.losses.penalties import gradient_penalty
from limner.nets import _labels as labels
from limner.nets import dcgan, mlp
from limner.nets._critic import Critic, rules

K = 3
DIGIT = (1, 16, 16)
SMALL = (2, 3, 4)
INDICES = torch.tensor([0, 2, 1, 1])
VECTORS = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.float64)


def perturbed(net: nn.Module) -> Any:
    """In float64, with weights large enough to matter."""
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


# ---- layers that take labels ----------------------------------------------------------------------------------------


def test_a_shift_is_what_planes_of_the_label_add_to_a_convolution():
    """Mirza and Osindero: the label is a further input. At the border planes of ones would meet the padding's zeros."""
    torch.manual_seed(0)
    conv, shift = nn.Conv2d(1, 5, 4, 2, 1).double(), labels.Shift(K, 5).double()
    with_planes = nn.Conv2d(1 + K, 5, 4, 2, 1).double()
    planes = torch.randn(5, K, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        with_planes.weight.copy_(torch.cat([conv.weight, planes], 1))
        with_planes.bias.copy_(conv.bias)
        shift.E.weight.copy_(planes.sum((2, 3)).T)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    for y in (INDICES, VECTORS):
        expected = with_planes(labels.append_vectors(x, y, K))
        torch.testing.assert_close(shift(conv(x), y)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_every_label_of_a_pack_shifts_the_map():
    shift = labels.Shift(K, 2, pack=2)
    out = shift(torch.zeros(2, 2, 1, 1), INDICES)[..., 0, 0]
    E = shift.E.weight
    torch.testing.assert_close(out, torch.stack([E[0] + E[K + 2], E[1] + E[K + 1]]))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4)])
def test_a_conditional_norm_scales_and_shifts_by_the_label(norm):
    """γ_y (h − μ)/√(σ² + ε) + β_y, μ and σ of the whole batch for batch norm (de Vries et al. 2017, eq. 4)."""
    layer = perturbed(labels.ConditionalNorm(norm, K, 4))
    h = torch.randn(4, 4, 5, 5, dtype=torch.float64)
    dims = (0, 2, 3) if isinstance(norm, nn.BatchNorm2d) else (2, 3)
    normed = (h - h.mean(dims, keepdim=True)) / (h.var(dims, correction=0, keepdim=True) + norm.eps).sqrt()
    for b, y in enumerate(INDICES.tolist()):
        gamma, beta = 1 + layer.scale.weight[y], layer.shift.weight[y]
        expected = gamma[:, None, None] * normed[b] + beta[:, None, None]
        torch.testing.assert_close(layer(h, INDICES)[b], expected)


def test_a_conditional_norm_begins_as_the_norm():
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4)
    h = torch.randn(4, 4, 5, 5)
    torch.testing.assert_close(labels.ConditionalNorm(norm, K, 4)(h, INDICES), norm(h), rtol=0.1, atol=0)


def test_the_discriminator_is_told_the_label_with_the_image():
    D = dcgan.Discriminator(4, "none", conditional=True, shape=DIGIT, classes=K)
    assert [type(layer) for layer in D.layers()][:3] == [nn.Conv2d, labels.Shift, nn.LeakyReLU]


def test_a_vector_of_zeros_is_the_null_label():
    layer = labels.Embedding(K, 2, null=True).double()
    torch.testing.assert_close(layer(VECTORS)[2], layer(torch.tensor([K]))[0])
    torch.testing.assert_close(layer(VECTORS)[0], layer.weight[0] + layer.weight[2])


def test_one_hot_vectors_are_class_indices_everywhere():
    one_hot = F.one_hot(INDICES, K).double()
    z, x = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, *DIGIT, dtype=torch.float64)
    for net, given in (
        *((dcgan.Generator(5, 4, conditional=c, shape=DIGIT, classes=K), z) for c in (True, "cbn")),
        *((mlp.Decoder(5, (6,), conditional=c, norm="batch", shape=DIGIT, classes=K), z) for c in (True, "cbn")),
        *((dcgan.Discriminator(4, "none", conditional=c, shape=DIGIT, classes=K), x) for c in (True, "projection")),
        *((mlp.Discriminator((6,), conditional=c, shape=DIGIT, classes=K), x) for c in (True, "projection")),
    ):
        net = perturbed(net).eval()
        torch.testing.assert_close(net(given, one_hot), net(given, INDICES))
        assert not torch.allclose(net(given, INDICES), net(given, INDICES.flip(0)))
        with pytest.raises(ValueError, match="give the label y of every sample"):
            net(given)
        with pytest.raises(ValueError, match="label vectors of 3"):
            net(given, torch.zeros(4, 2, dtype=torch.float64))


# ---- projection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("net", [dcgan.Discriminator, mlp.Discriminator])
def test_two_labels_differ_by_their_projections(net, spectral):
    """f(x,y) − f(x,y') = ⟨V_y − V_y', φ(x)⟩, with the normalised V if the net has spectral norm."""
    options: dict[str, Any] = {"width": 4, "norm": "none"} if net is dcgan.Discriminator else {"widths": (8, 6)}
    D = perturbed(net(**options, conditional="projection", spectral=spectral, shape=DIGIT, classes=K)).eval()
    x, other = torch.randn(4, *DIGIT, dtype=torch.float64), INDICES.flip(0)
    *body, head = D.layers()
    phi = x if net is dcgan.Discriminator else x.flatten(1)
    for layer in body:
        phi = layer(phi)
    V = head.V.weight
    expected = ((V[INDICES] - V[other]) * phi.flatten(1)).sum(1)
    torch.testing.assert_close(D(x, INDICES) - D(x, other), expected)
    assert expected.abs().min() > 1e-6
    torch.testing.assert_close(D(x, torch.zeros(4, K, dtype=torch.float64)), head.head(phi).flatten())  # no label: l(φ)


def test_spectral_norm_bounds_the_projection():
    D = dcgan.Discriminator(4, "none", spectral=True, conditional="projection", shape=DIGIT, classes=K)
    x, y = torch.randn(4, *DIGIT), INDICES
    for _ in range(30):
        D(x, y)
    head = list(D.layers())[-1]
    for weight in (head.V.weight, head.head.weight.flatten(1)):
        assert torch.linalg.svdvals(weight)[0].item() == pytest.approx(1, abs=1e-3)


# ---- the gradient at the image --------------------------------------------------------------------------------------

CRITICS: dict[str, tuple[type[Critic], dict[str, Any]]] = {
    "mlp": (mlp.Discriminator, {"widths": (12, 8), "conditional": True}),
    "mlp pack": (mlp.Discriminator, {"widths": (8,), "conditional": True, "pack": 2}),
    "mlp projection": (mlp.Discriminator, {"widths": (12, 8), "conditional": "projection", "spectral": True}),
    "dcgan": (dcgan.Discriminator, {"width": 4, "norm": "none", "conditional": True}),
    "dcgan pack": (dcgan.Discriminator, {"width": 4, "norm": "none", "conditional": True, "pack": 2}),
    "dcgan projection": (dcgan.Discriminator, {"width": 4, "norm": "none", "conditional": "projection"}),
    "dcgan spectral": (
        dcgan.Discriminator,
        {"width": 4, "norm": "none", "conditional": "projection", "spectral": True, "classifiers": 1},
    ),
    "dcgan layer": (dcgan.Discriminator, {"width": 4, "norm": "layer", "conditional": "projection"}),
}


@pytest.mark.parametrize("y", [INDICES, VECTORS], ids=["indices", "vectors"])
@pytest.mark.parametrize("name", CRITICS)
def test_the_gradient_of_a_bound_critic_is_autograds_to_second_order(name, y):
    cls, options = CRITICS[name]
    torch.manual_seed(0)
    D = perturbed(cls(**options, shape=DIGIT, classes=K))
    assert (rules(D.layers()) is None) == ("layer" in name)
    x, fake = torch.randn(2, 4, *DIGIT, dtype=torch.float64)
    eps = torch.rand(4, dtype=torch.float64)
    results = []
    for net, bound in ((copy.deepcopy(D), Critic.bind), (copy.deepcopy(D), lambda D, y: lambda x: D(x, y))):
        critic = bound(net, y)
        penalty = gradient_penalty(critic, x, fake, eps)
        penalty.backward()
        results.append([penalty, *(torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters())])
    assert results[0][0] > 1e-3
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


# ---- class logits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"classifiers": 1}, {"classifiers": 2, "conditional": "projection"}])
def test_classifiers_share_the_features_of_the_logit(options):
    D = perturbed(dcgan.Discriminator(4, "none", **options, shape=DIGIT, classes=K))
    x: Tensor = torch.randn(4, *DIGIT, dtype=torch.float64)
    logits, heads = D.classify(x, INDICES)
    torch.testing.assert_close(logits, D(x, INDICES))
    phi = x
    for layer in list(D.layers())[:-1]:
        phi = layer(phi)
    expected = phi.flatten(1) @ D.C.weight.T + D.C.bias
    assert [h.shape for h in heads] == [(4, K)] * options["classifiers"]
    torch.testing.assert_close(torch.cat(heads, 1), expected)


def test_nets_without_classifiers_have_no_further_weights():
    with_labels = dcgan.Discriminator(4, shape=DIGIT, classes=K)
    assert with_labels.state_dict().keys() == dcgan.Discriminator(4, shape=DIGIT).state_dict().keys()


# ---- what is asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (dcgan.Generator, {"conditional": "cbn", "norm": "none"}, "use norm=batch, or conditional=true"),
        (mlp.Decoder, {"conditional": "cbn", "z": 2}, "use norm=batch, or conditional=true"),
        (dcgan.Discriminator, {"conditional": "projection", "pack": 2}, "use pack=1"),
        (mlp.Discriminator, {"classifiers": 1, "pack": 2}, "use pack=1"),
        (mlp.Discriminator, {"classifiers": -1}, "0 or more"),
        (mlp.Discriminator, {"classifiers": 1, "classes": 0}, "classifiers needs data with class labels"),
        (dcgan.Discriminator, {"conditional": "projection", "classes": 0}, "conditional=projection needs data with"),
    ],
)
def test_what_cannot_be_is_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        net(**{"shape": DIGIT, "classes": K, **options})


@pytest.mark.parametrize(
    ("net", "written", "means"),
    [
        ("dcgan.Generator", "cbn", "cbn"),
        ("dcgan.Generator", "true", True),
        ("dcgan.Generator", True, True),  # as in recipes and checkpoints of earlier versions
        ("mlp.Discriminator", "no", False),
        ("mlp.Discriminator", "projection", "projection"),
    ],
)
def test_one_word_says_how_the_label_enters(net, written, means):
    from limner.core.yaml_text import Text

    value = Text(written) if isinstance(written, str) else written
    assert Spec.parse("net", {"name": net, "conditional": value}).kwargs["conditional"] == means
    with pytest.raises(LimnerError, match="conditional"):
        Spec.parse("net", {"name": net, "conditional": "planes"})
