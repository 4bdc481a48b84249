"""Generators of StyleGAN2 in two layouts: that of rosinality's repository, and that of NVIDIA's code for PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.config.published.layers import Imported, looks_like
from limner.core.errors import LimnerError
from limner.core.foreign import plain

_FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
_RATE = 0.01  # of the mapping net's learning rate
_DRAWS = 10_000  # of z, for a mean of w that is not in the file
_LARGEST = 4096  # pixels of the largest images; each further size has four times as many numbers of noise
_AVERAGED = ("G_ema", "g_ema")  # names of the averaged generator
_NOT_WHOLE = "is no whole generator of StyleGAN2; give the state dict of g_ema, or the .pkl"
_LICENCE = (
    "weights that NVIDIA published, or that were converted from them, may be used for non-commercial purposes only; see"
    " their licence"
)
_OTHERS = (  # nets that are called StyleGAN and are not the one that limner has
    (r"(GAN\.)?(S|G|GE|SE)\.(net|blocks|initial_block|attns)\b", "lucidrains' stylegan2_pytorch, another net"),
    (r".*style_modulation\.", "MMGeneration's StyleGAN2, which is not read yet"),
    (r"(synthesis\.)?(input\.(freqs|phases)|L\d+_\d+_\d+\.)", "StyleGAN3"),
    (r"(g_)?synthesis\.blocks\.", "StyleGAN of 2019 in the layout of lernapparat, which is not read"),
    (r"(module\.)?generator\.progression\.", "StyleGAN of 2019 in rosinality's layout, which is not read"),
)


def stylegan2(name: str, nets: Mapping[str, dict[str, Tensor]], part: str | None) -> Imported:
    """A StyleGAN2 with the generator of a file.

    Args:
        name: name of the file, for messages.
        nets: its state dicts by name; "" are tensors beside them.
        part: which of them; the averaged generator by default.

    Raises:
        LimnerError: the file holds another net, or a part of the net is missing.
    """
    for pattern, what in _OTHERS:
        if any(re.match(pattern, key) for net in nets.values() for key in net):
            raise LimnerError(f"{name} is {what}; limner reads rosinality's .pt and NVIDIA's .pkl of StyleGAN2")
    tensors = _generator(name, nets, part)
    try:
        if {"input.input", "style.1.weight"} <= set(tensors):
            tensors = _named_by_nvidia(tensors, nets.get("", {}).get("latent_avg"))
        if "synthesis.b4.const" in tensors:
            return _built(name, tensors)
    except (IndexError, RuntimeError, TypeError, ValueError):  # tensors of too few dimensions, or that do not fit
        raise LimnerError(f"{name} has tensors of other shapes than a generator of StyleGAN2; save it anew") from None
    kind = looks_like(tensors)
    raise LimnerError(
        f"{name} {_NOT_WHOLE}"
        if kind.endswith("import stylegan2")
        else f"{name} holds no generator of StyleGAN2, {kind}"
    )


def _generator(name: str, nets: Mapping[str, dict[str, Tensor]], part: str | None) -> dict[str, Tensor]:
    """The state dict that is meant: `part`, the averaged generator, or the only one."""
    split: dict[str, dict[str, Tensor]] = {}
    for key, tensor in nets.get("", {}).items():  # a .safetensors file with the name of the net before each tensor
        first, _, rest = key.partition(".")
        split.setdefault(first, {})[rest] = tensor
    found = {**split, **{k: t for k, t in nets.items() if k}}
    if part is not None:
        if part not in found:
            known = ", ".join(k for k in found if "" not in found[k]) or "one net"
            raise LimnerError(f"{name} has no part {part!r}; it has {plain(known)}")
        return dict(found[part])
    for averaged in _AVERAGED:
        if averaged in found:
            return dict(found[averaged])
    named = [k for k in nets if k]
    if len(named) > 1:
        raise LimnerError(f"{name} holds several nets; name one: part={plain(' or '.join(named))}")
    return dict(nets[named[0]] if named else nets.get("", {}))


def _named_by_nvidia(tensors: Mapping[str, Tensor], mean: Tensor | None) -> dict[str, Tensor]:
    """The tensors of rosinality's layout by NVIDIA's names; a tensor without such a name keeps its own."""
    named = {} if mean is None else {"mapping.w_avg": mean.flatten()}
    for key, tensor in tensors.items():
        new, value = _layer_named_by_nvidia(key), tensor
        if new.endswith(("conv0.weight", "conv1.weight", "torgb.weight", ".const")):
            value = tensor.squeeze(0)
        elif new.endswith("noise_strength"):
            value = tensor.reshape(())
        elif new.endswith("torgb.bias"):
            value = tensor.flatten()
        named[new] = value
    return named


_PARTS = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
    "conv.blur.kernel": "resample_filter",
    "upsample.kernel": "resample_filter",
}


def _layer_named_by_nvidia(key: str) -> str:
    """NVIDIA's name of a tensor of rosinality's layout, or the same name."""
    if key == "input.input":
        return "synthesis.b4.const"
    if m := re.fullmatch(r"style\.(\d{1,2})\.(weight|bias)", key):
        return f"mapping.fc{int(m[1]) - 1}.{m[2]}"
    if m := re.fullmatch(r"noises\.noise_(\d{1,2})", key):
        return f"{_conv(int(m[1]))}.noise_const"
    m = re.fullmatch(r"(conv1|to_rgb1|convs\.\d{1,2}|to_rgbs\.\d{1,2})\.(.+)", key)
    if not m or m[2] not in _PARTS:
        return key
    layer, _, number = m[1].partition(".")
    k = int(number or -1) + 1
    return f"{_conv(k) if layer.startswith('conv') else f'synthesis.b{4 << k}.torgb'}.{_PARTS[m[2]]}"


def _conv(k: int) -> str:
    """NVIDIA's name of the k-th convolution: one at 4×4, two at each further size."""
    return f"synthesis.b{4 << (k + 1) // 2}.conv{(k + 1) % 2 if k else 1}"


def _built(name: str, tensors: dict[str, Tensor]) -> Imported:
    """The call of limner's model and the tensors for it, of a generator of NVIDIA's layout.

    Args:
        name: name of the file, for messages.
        tensors: the tensors; each is taken once.
    """
    _drop_filters(name, tensors)
    notes = [_LICENCE]
    convs = 0
    while f"{_conv(convs)}.weight" in tensors:
        convs += 1
    layers = 0
    while f"mapping.fc{layers}.weight" in tensors:
        layers += 1
    if convs < 3 or not convs % 2 or not layers:
        raise LimnerError(f"{name} {_NOT_WHOLE}")
    try:
        w, inputs = tensors["mapping.fc0.weight"].shape
        state = {"constant": tensors.pop("synthesis.b4.const")[None]}
        classes = _embed(tensors, state)
        if "mapping.w_avg" not in tensors and not classes:  # which have means of their own
            tensors["mapping.w_avg"] = _mean_of_w(tensors, layers, inputs)
            notes.append(f"the file has no mean of w; that of {_DRAWS:,} draws is taken")
        state["w_mean"] = tensors.pop("mapping.w_avg", torch.zeros(w))
        for k in range(layers):
            for part in ("weight", "bias"):
                state[f"mapping.net.{2 * k}.{part}"] = tensors.pop(f"mapping.fc{k}.{part}")
        for k in range(convs):
            _take_layer(tensors, _conv(k), f"layers.{k}", state)
            state[f"layers.{k}.strength"] = tensors.pop(f"{_conv(k)}.noise_strength")
        for k in range(convs // 2 + 1):
            _take_layer(tensors, f"synthesis.b{4 << k}.torgb", f"pictures.{k}", state)
        maps = [tensors.pop(f"{_conv(k)}.noise_const", None) for k in range(convs)]
    except KeyError as error:
        raise LimnerError(f"{name} has no {str(error.args[0])[:60]}; give the whole generator of StyleGAN2") from None
    if tensors:
        raise LimnerError(f"{name} has a tensor {next(iter(tensors))}, which limner's stylegan2 has not")
    known = [m.flatten() for m in maps if m is not None]
    if len(known) == convs:
        state["noise.fixed"] = torch.cat(known)[None]
    else:
        notes.append("the file has no fixed noise; new noise is taken")
    return _imported(name, state, notes, classes, inputs - w if classes else inputs)


def _imported(name: str, state: dict[str, Tensor], notes: list[str], classes: int, z: int) -> Imported:
    """The model for limner's tensors of G."""
    widths = [len(t) for k, t in state.items() if re.fullmatch(r"layers\.\d*[02468]\.conv\.bias", k)]
    width, widest = widths[-1], max(widths)
    if widths[::-1] != [min(width << k, widest) for k in range(len(widths))]:
        raise LimnerError(f"{name} has {widths} channels; limner's stylegan2 doubles them up to a largest one")
    sizes: dict[str, Any] = {"width": width, "widest": widest}
    sizes |= {"conditional": True} if classes else {}
    mapping = sum(k.startswith("mapping.net.") for k in state) // 2
    tree: dict[str, Any] = {"name": "stylegan2", "D": {"name": "stylegan2.Discriminator", **sizes}}
    tree["G"] = {"name": "stylegan2.Generator", "z": z, "w": len(state["w_mean"]), "mapping": mapping, **sizes}
    side = 4 << (len(widths) - 1)
    if side > _LARGEST:
        raise LimnerError(f"{name} is a generator of more than {_LARGEST} pixels; smaller ones are read")
    shape = (len(state["pictures.0.conv.bias"]), side, side)
    facts: dict[str, Any] = {"shape": shape, "classes": classes, "condition": None}
    return Imported(tree, facts, {}, notes, {"G": state})


def _take_layer(tensors: dict[str, Tensor], at: str, to: str, state: dict[str, Tensor]) -> None:
    """Takes the tensors of a modulated convolution."""
    for old, new in (("weight", "conv.weight"), ("bias", "conv.bias")):
        state[f"{to}.{new}"] = tensors.pop(f"{at}.{old}")
    for part in ("affine.weight", "affine.bias"):
        state[f"{to}.{part}"] = tensors.pop(f"{at}.{part}")


def _embed(tensors: dict[str, Tensor], state: dict[str, Tensor]) -> int:
    """Takes the embedding of labels, a linear layer W y/√K + b, as one vector for each class; returns K."""
    weight = tensors.pop("mapping.embed.weight", None)
    if weight is None:
        return 0
    classes = weight.shape[1]
    state["mapping.embed.weight"] = weight.T / sqrt(classes) + tensors.pop("mapping.embed.bias")
    return classes


def _mean_of_w(tensors: Mapping[str, Tensor], layers: int, inputs: int) -> Tensor:
    """The mean of w over draws of z."""
    h = torch.randn(_DRAWS, inputs, generator=torch.Generator().manual_seed(0))
    h = h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-8)
    for k in range(layers):
        weight, bias = tensors[f"mapping.fc{k}.weight"].float(), tensors[f"mapping.fc{k}.bias"].float()
        h = F.leaky_relu(F.linear(h, weight * (_RATE / sqrt(weight.shape[1])), _RATE * bias), 0.2) * sqrt(2)
    return h.mean(0)


def _drop_filters(name: str, tensors: dict[str, Tensor]) -> None:
    """Takes the filters of the resampling, which must be limner's."""
    for key in [k for k in tensors if k.endswith("resample_filter")]:
        kernel = tensors.pop(key).float()
        total = kernel.sum()
        if kernel.shape != (4, 4) or not torch.allclose(kernel / total, _FILTER.outer(_FILTER), atol=1e-4):
            raise LimnerError(f"{name}: {key} is another filter than (1,3,3,1), which limner's stylegan2 has")
