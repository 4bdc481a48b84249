"""What holds for every net of the package."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

from limner import nets as package
from limner.nets.protocols import Dequantiser, Flow

SHAPE = (1, 28, 28)
SOURCE = (2, 28, 28)


def public_nets() -> dict[str, type[nn.Module]]:
    nets = {}
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_") and module.name not in ("augment", "vgg", "protocols"):  # nothing to learn
            loaded = importlib.import_module(f"limner.nets.{module.name}")
            for name, cls in inspect.getmembers(loaded, inspect.isclass):
                if cls.__module__ == loaded.__name__ and issubclass(cls, nn.Module) and not name.startswith("_"):
                    nets[f"{module.name}.{name}"] = cls
    return nets


ALL = public_nets()
NETS = {n: cls for n, cls in ALL.items() if not issubclass(cls, Flow | Dequantiser)}  # which have tests of their own
TRANSLATORS = [n for n, cls in NETS.items() if "source" in inspect.signature(cls).parameters]
UNLABELLED = ("patchgan", "style", "denoiser")  # `test_denoiser.py` labels the last
LABELLED = [n for n in NETS if n not in TRANSLATORS and n.partition(".")[0] not in UNLABELLED]


def build(name: str, **options: Any) -> nn.Module:
    cls = NETS[name]
    needed = {"shape": (3, 1, 1) if name == "denoiser.MLP" else SHAPE, "source": SOURCE, "classes": 10, "z": 4}
    if name == "unet.Generator":
        options = {"dropout": 0.0} | options  # its dropout is active in evaluation mode
    declared = inspect.signature(cls).parameters
    return cls(**{k: v for k, v in needed.items() if k in declared}, **options)


def call(net: nn.Module, name: str, *labels: torch.Tensor) -> torch.Tensor:
    x = inputs(net, name)
    return net(x, torch.linspace(0, 1, len(x)), *labels) if name.startswith("denoiser") else net(x, *labels)


def inputs(net: nn.Module, name: str, batch: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    if name in TRANSLATORS:
        channels = SOURCE[0] + SHAPE[0] if name == "patchgan.PairDiscriminator" else SOURCE[0]
        return torch.randn(batch, channels, *SHAPE[1:], generator=g)
    if name == "caae.CodeDiscriminator":
        return torch.randn(batch, net.z, generator=g)
    if name == "style.Decoder":
        return torch.randn(batch, 256, 7, 7, generator=g)
    if "Decoder" in name or "Generator" in name:
        return torch.randn(batch, *net.code_shape, generator=g)
    shape = net.shape if name.startswith("denoiser") else SHAPE
    return torch.randn(batch, *shape, generator=g)


@pytest.mark.parametrize("name", ALL)
def test_every_argument_is_documented_and_typed(name):
    cls = ALL[name]
    for argument in inspect.signature(cls).parameters.values():
        assert f"\n        {argument.name}: " in f"\n    {cls.__doc__}", argument.name
        assert argument.annotation is not inspect.Parameter.empty


@pytest.mark.parametrize(
    "name", [n for n in NETS if not n.startswith("progressive")]
)  # their small levels take no part
def test_every_parameter_gets_a_gradient_and_labels_may_be_given(name):
    net = build(name)
    torch.manual_seed(0)
    for p in net.parameters():
        p.data += 0.02 * torch.randn_like(p)  # away from branches that begin at zero
    labels = [torch.tensor([0, 1, 2])] if name in LABELLED else []
    call(net, name, *labels).square().sum().backward()
    for key, p in net.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NETS)
def test_the_forward_is_one_graph(name):
    net = build(name).eval()
    torch.compiler.reset()  # each net is compiled anew, and there is a limit to that
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(call(compiled, name), call(net, name))


CONDITIONAL = [
    *((n, True) for n in ("mlp.Encoder", "mlp.Decoder", "mlp.Discriminator", "conv.Encoder", "conv.Decoder")),
    *((f"dcgan.{n}", True) for n in ("Generator", "Discriminator")),
    ("dcgan.Generator", "cbn"),
    ("dcgan.Discriminator", "projection"),
    ("mlp.Discriminator", "projection"),
]


@pytest.mark.parametrize(("name", "way"), CONDITIONAL)
def test_a_conditional_forward_is_one_graph(name, way):
    net = build(name, conditional=way).eval()
    x, y = inputs(net, name), torch.tensor([0, 5, 9])
    torch.compiler.reset()  # each net is compiled anew, and there is a limit to that
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, y), net(x, y))


@pytest.mark.parametrize("name", NETS)
def test_copies_compute_the_same(name):
    net = build(name).eval()
    assert torch.equal(call(copy.deepcopy(net), name), call(net, name))


@pytest.mark.parametrize("name", NETS)
def test_the_bias_of_the_last_layer_reaches_the_output_with_its_sign(name):
    net = build(name).eval()
    called = []
    for module in net.modules():
        if not list(module.children()) and list(module.parameters()):
            module.register_forward_hook(lambda module, *_: called.append(module))
    with torch.no_grad():
        before = call(net, name)
        called[-1].register_forward_hook(lambda module, given, out: out + 0.5)
        after = call(net, name)
    assert (after >= before).all()
    assert (after > before).float().mean() > 0.9
