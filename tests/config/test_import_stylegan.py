"""Published generators of StyleGAN2, computed from their equations, draw what limner's draw of the same styles."""

from __future__ import annotations

import argparse
import builtins
import functools
import importlib
import io
import operator
import os
import pickle  # noqa: TID251 - to make files like NVIDIA's, and files that must be refused
import runpy
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import limner
from limner.apply.draw import draw
from limner.config.import_weights import _build, import_weights
from limner.config.published.stylegan import stylegan2
from limner.core import foreign, weights
from limner.core.capabilities import HasStyles
from limner.core.errors import LimnerError
from limner.core.progress import Silent

State = dict[str, Tensor]
W, MAPPING = 12, 3
BUFFERS = ("noise_const", "resample_filter", "w_avg")
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def rosinality(widths: list[int], channels: int = 3) -> State:
    """A state dict of rosinality's generator with random weights; widths from 4×4 on."""
    g = torch.Generator().manual_seed(0)
    state: State = {}

    def normal(name: str, *shape: int, mean: float = 0.0) -> None:
        state[name] = mean + torch.randn(shape, generator=g)

    def layer(name: str, a: int, b: int, kernel: int) -> None:
        normal(f"{name}.conv.weight", 1, b, a, kernel, kernel)
        normal(f"{name}.conv.modulation.weight", a, W)
        normal(f"{name}.conv.modulation.bias", a, mean=1.0)
        if kernel == 3:
            normal(f"{name}.noise.weight", 1)
            normal(f"{name}.activate.bias", b)
        else:
            normal(f"{name}.bias", 1, b, 1, 1)

    for k in range(1, MAPPING + 1):
        normal(f"style.{k}.weight", W, W)
        state[f"style.{k}.weight"] *= 100
        normal(f"style.{k}.bias", W)
    normal("input.input", 1, widths[0], 4, 4)
    layer("conv1", widths[0], widths[0], 3)
    layer("to_rgb1", widths[0], channels, 1)
    for k, (a, b) in enumerate(pairwise(widths)):
        layer(f"convs.{2 * k}", a, b, 3)
        state[f"convs.{2 * k}.conv.blur.kernel"] = 4 * FILTER.outer(FILTER)
        layer(f"convs.{2 * k + 1}", b, b, 3)
        layer(f"to_rgbs.{k}", b, channels, 1)
        state[f"to_rgbs.{k}.upsample.kernel"] = 4 * FILTER.outer(FILTER)
    for k in range(2 * len(widths) - 1):
        side = 4 << (k + 1) // 2
        normal(f"noises.noise_{k}", 1, 1, side, side)
    return state


def resampled(x: Tensor, up: int, pads: tuple[int, int]) -> Tensor:
    """Zeros between the pixels, zeros around, and the filter with a gain of up²: each channel by itself."""
    b, c, h, w = x.shape
    wide = x.new_zeros(b * c, 1, h * up, w * up)
    wide[:, :, ::up, ::up] = x.reshape(b * c, 1, h, w)
    out = F.conv2d(F.pad(wide, [*pads, *pads]), (4 * FILTER.outer(FILTER)).to(x.dtype)[None, None])
    return out.view(b, c, *out.shape[2:])


def linear(x: Tensor, state: State, name: str, rate: float = 1.0) -> Tensor:
    """Equalised: W · rate/√(fan in), b · rate."""
    weight = state[f"{name}.weight"]
    return F.linear(x, weight * rate / sqrt(weight.shape[1]), state[f"{name}.bias"] * rate)


def modulated(x: Tensor, w: Tensor, state: State, name: str, up: bool = False, demodulate: bool = True) -> Tensor:
    """Eq. 1 and 3 of the paper: weights of each image, scaled by 1/√(fan in), and one convolution of B groups."""
    weight, b = state[f"{name}.conv.weight"], len(x)
    s = linear(w, state, f"{name}.conv.modulation")
    weight = weight * s[:, None, :, None, None] / sqrt(weight[0, 0].numel())  # (B,O,I,k,k)
    if demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    grouped = x.reshape(1, -1, *x.shape[2:])
    if up:
        out = F.conv_transpose2d(grouped, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=b)
        return resampled(out.view(b, -1, *out.shape[2:]), 1, (1, 1))
    out = F.conv2d(grouped, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=b)
    return out.view(b, -1, *out.shape[2:])


def mapped(state: State, z: Tensor) -> Tensor:
    h = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
    for k in range(1, MAPPING + 1):
        h = F.leaky_relu(linear(h, state, f"style.{k}", rate=0.01), 0.2) * sqrt(2)
    return h


def synthesised(state: State, ws: Tensor) -> Tensor:
    """What rosinality's generator computes of styles (B,L,w) with its fixed noise."""

    def styled(x: Tensor, k: int, name: str, up: bool = False) -> Tensor:
        h = modulated(x, ws[:, k], state, name, up) + state[f"{name}.noise.weight"] * state[f"noises.noise_{k}"]
        return F.leaky_relu(h + state[f"{name}.activate.bias"][:, None, None], 0.2) * sqrt(2)

    def picture(x: Tensor, k: int, name: str) -> Tensor:
        return modulated(x, ws[:, k], state, name, demodulate=False) + state[f"{name}.bias"]

    h = styled(state["input.input"].expand(len(ws), -1, -1, -1), 0, "conv1")
    image = picture(h, 1, "to_rgb1")
    for k in range((ws.shape[1] - 2) // 2):
        h = styled(h, 2 * k + 1, f"convs.{2 * k}", up=True)
        h = styled(h, 2 * k + 2, f"convs.{2 * k + 1}")
        image = picture(h, 2 * k + 3, f"to_rgbs.{k}") + resampled(image, 2, (2, 1))
    return image


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_rosinalitys_checkpoint_draws_the_same(tmp_path: Path) -> None:
    """To 1e-5; the file has the settings of its training, which a reader of state dicts alone refuses."""
    widths, channels = [16, 16, 8, 4], 3
    state, mean, notes = rosinality(widths, channels), torch.randn(W), Notes()
    file = tmp_path / "stylegan2.pt"
    optimiser = {"state": {}, "param_groups": [{"lr": 0.002, "params": [0]}]}
    other = {k: t + 1 for k, t in state.items()}
    whole = {"g": other, "d": {"final.weight": mean}, "g_ema": state, "g_optim": optimiser, "latent_avg": mean}
    torch.save({**whole, "args": argparse.Namespace(size=32, n_mlp=3), "ada_aug_p": 0.0}, file)
    out = import_weights("stylegan2", file, tmp_path / "m.safetensors", progress=notes)
    assert "non-commercial" in notes.said[0]
    model = limner.load(out)
    assert isinstance(model, HasStyles)
    z, layers = torch.randn(3, W), 2 * len(widths)
    torch.testing.assert_close(model.styles(z)[:, 0], mapped(state, z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.mean_style()[0, 0], mean)
    ws = torch.randn(3, layers, W)
    with torch.no_grad():
        expected = synthesised(state, ws)
        got = model.G.synthesis(ws)
    assert got.shape == (3, channels, 2 << len(widths), 2 << len(widths))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    draw(out, tmp_path / "out.png", n=1, psi=0.7)
    assert Image.open(tmp_path / "out.png").size >= (2 << len(widths),) * 2


def test_without_a_mean_of_w_it_is_estimated_and_safetensors_are_read(tmp_path: Path) -> None:
    state, notes = rosinality([8, 4], channels=1), Notes()
    file = tmp_path / "converted.safetensors"
    other = {k: t if k.endswith("kernel") else t + 1 for k, t in state.items()}
    whole = {f"{net}.{k}": t for net, each in (("g_ema", state), ("g", other)) for k, t in each.items()}
    save_file({k: t.clone() for k, t in whole.items()}, file, {"config": "{}"})
    second = limner.load(import_weights("stylegan2", file, tmp_path / "g.safetensors", part="g"))
    assert torch.equal(second.G.constant, other["input.input"])
    model = limner.load(import_weights("stylegan2", file, tmp_path / "m.safetensors", progress=notes))
    ws = torch.randn(2, 4, W)
    with torch.no_grad():
        torch.testing.assert_close(model.G.synthesis(ws), synthesised(state, ws), rtol=1e-5, atol=1e-4)
    assert any("no mean of w" in note for note in notes.said)
    expected = mapped(state, torch.randn(20_000, W)).mean(0)
    torch.testing.assert_close(model.mean_style()[0, 0], expected, rtol=0, atol=0.06)


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes objects that are pickled as those of NVIDIA's code: with the source of their class beside their state."""

    def reconstruct(meta: Any) -> Any:
        raise AssertionError("nothing may call this")

    reconstruct.__module__, reconstruct.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = reconstruct  # type: ignore[attr-defined]
    parent = types.ModuleType("torch_utils")
    parent.persistence = persistence  # type: ignore[attr-defined]
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util", "__qualname__": "EasyDict"})  # type: ignore[attr-defined]
    top = types.ModuleType("dnnlib")
    top.util = util  # type: ignore[attr-defined]
    for module in (parent, persistence, top, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    class Persistent:
        def __init__(self, state: dict[str, Any], source: str = "raise SystemExit") -> None:
            self.state, self.source = state, source

        def __reduce__(self) -> Any:
            meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "G", "state": self.state}
            return reconstruct, (meta,)

    return Persistent


def in_modules(state: State, make: Callable[..., Any]) -> Any:
    """A tree of modules with the tensors of a state dict."""
    own = {k: t for k, t in state.items() if "." not in k}
    children: dict[str, State] = {}
    for key, tensor in state.items():
        first, dot, rest = key.partition(".")
        if dot:
            children.setdefault(first, {})[rest] = tensor
    parameters = {k: nn.Parameter(t) for k, t in own.items() if k not in BUFFERS}
    modules = {k: in_modules(part, make) for k, part in children.items()}
    kept = {k: t for k, t in own.items() if k in BUFFERS}
    settings = sys.modules["dnnlib.util"].EasyDict(activation="lrelu")
    more = {"training": False, "_forward_hooks": {}, "img_resolution": 16, "_init_kwargs": settings}
    return make({"_parameters": parameters, "_buffers": kept, "_modules": modules, **more})


def named_by_nvidia(state: State) -> State:
    """A rosinality state dict by NVIDIA's names."""
    named: State = {}
    parts = {"conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias"}
    parts |= {"noise.weight": "noise_strength", "activate.bias": "bias", "bias": "bias"}
    for key, tensor in state.items():
        layer, _, part = key.partition(".")
        number, _, rest = part.partition(".")
        if layer == "style":
            named[f"mapping.fc{int(number) - 1}.{rest}"] = tensor
        elif layer == "input":
            named["synthesis.b4.const"] = tensor[0]
        elif layer == "noises":
            k = int(key.rpartition("_")[2])
            named[f"synthesis.b{4 << (k + 1) // 2}.conv{0 if k % 2 else 1}.noise_const"] = tensor[0, 0]
        elif layer in ("conv1", "to_rgb1"):
            named[f"synthesis.b4.{'conv1' if layer == 'conv1' else 'torgb'}.{parts[part]}"] = tensor
        elif rest in parts:
            k = int(number)
            block = 8 << (k // 2) if layer == "convs" else 8 << k
            named[f"synthesis.b{block}.{f'conv{k % 2}' if layer == 'convs' else 'torgb'}.{parts[rest]}"] = tensor
    for key, tensor in named.items():
        if key.endswith(("conv0.weight", "conv1.weight", "torgb.weight")):
            named[key] = tensor[0]
        elif key.endswith("torgb.bias"):
            named[key] = tensor.flatten()
        elif key.endswith("noise_strength"):
            named[key] = tensor.reshape(())
    blocks = {key.rpartition(".conv1")[0] for key in named if ".conv1" in key}
    return named | {f"{block}.resample_filter": FILTER.outer(FILTER) for block in blocks}


def test_nvidias_pickle_is_read_without_its_code(tmp_path: Path, nvidia: Any) -> None:
    state, mean = rosinality([8, 8, 4]), torch.randn(W)
    net = in_modules(named_by_nvidia(state) | {"mapping.w_avg": mean}, nvidia)
    content = {"G": net, "D": nvidia({"_parameters": {"b": nn.Parameter(mean)}}), "G_ema": net}
    content |= {"training_set_kwargs": sys.modules["dnnlib.util"].EasyDict(path="x.zip"), "augment_pipe": None}
    file = tmp_path / "network-snapshot.pkl"
    file.write_bytes(pickle.dumps(content, 4))
    model = limner.load(import_weights("stylegan2", file, tmp_path / "m.safetensors"))
    ws = torch.randn(2, 6, W)
    with torch.no_grad():
        expected = synthesised(state, ws)
        torch.testing.assert_close(model.G.synthesis(ws), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(model.mean_style()[0, 0], mean)


def built(nets: dict[str, State]) -> Any:
    """The model of some state dicts."""
    return _build(stylegan2("w.pt", nets, None), ["w.pt"])


def test_labels_of_nvidias_nets_are_embedded_as_there() -> None:
    """E y = W y/√K + b, normalised and joined to z."""
    state, classes = named_by_nvidia(rosinality([8, 4])), 5
    state |= {"mapping.embed.weight": torch.randn(W, classes), "mapping.embed.bias": torch.randn(W)}
    state["mapping.fc0.weight"] = 100 * torch.randn(W, 2 * W)
    model = built({"G_ema": state, "G": state})
    assert not model.G.w_mean.any(), "labels have means of their own"
    z, y = torch.randn(3, W), torch.tensor([4, 0, 2])
    parts = [z, linear(F.one_hot(y, classes).float(), state, "mapping.embed")]
    h = torch.cat([p * torch.rsqrt(p.square().mean(1, keepdim=True) + 1e-8) for p in parts], 1)
    for k in range(MAPPING):
        h = F.leaky_relu(linear(h, state, f"mapping.fc{k}", rate=0.01), 0.2) * sqrt(2)
    torch.testing.assert_close(model.styles(z, y)[:, 0], h, rtol=1e-5, atol=1e-5)


def test_other_nets_and_parts_of_nets_are_refused_by_name() -> None:
    state = rosinality([8, 4])
    nvidias, high = named_by_nvidia(state), named_by_nvidia(rosinality([1] * 2))
    biases = [k for k in nvidias if k.endswith(("conv0.bias", "conv1.bias"))]
    for k in range(4, 14):  # 65,536 pixels, whose noise alone would have 5 G numbers
        high |= {key.replace(".b8.", f".b{1 << k}."): t for key, t in high.items() if ".b8." in key}
    for nets, match in (
        ({"GAN": {"S.net.0.weight": torch.ones(2, 2), "G.initial_block": torch.ones(1, 2, 4, 4)}}, "lucidrains"),
        ({"g": {"synthesis.input.freqs": torch.ones(2, 2)}}, "StyleGAN3"),
        ({"g": {"generator.progression.0.conv1.0.weight": torch.ones(2)}}, "StyleGAN of 2019"),
        ({"g": {"generator.convs.0.conv.style_modulation.weight": torch.ones(2)}}, "MMGeneration"),
        ({"g": {"main.0.weight": torch.ones(2), "main.1.weight": torch.ones(2)}}, "limner import dcgan"),
        ({"g_ema": {k: t for k, t in state.items() if k != "to_rgb1.conv.weight"}}, r"has no .*torgb\.weight"),
        ({"g_ema": {k: t for k, t in state.items() if not k.startswith("convs.1")}}, "no whole generator"),
        ({"g_ema": state | {"attention.weight": torch.ones(2)}}, r"has a tensor attention\.weight"),
        ({"g_ema": state | {"convs.0.conv.blur.kernel": torch.ones(4, 4)}}, "another filter"),
        ({"g_ema": state | {"convs.1.activate.bias": torch.ones(9)}}, "doubles them|does not fit"),
        ({"g_ema": state | {"input.input": torch.ones(1, 8, 5, 5)}}, "does not fit"),
        ({"g": state, "d": {"final.weight": torch.ones(2)}}, "several nets; name one: part=g or d"),
        ({"g_ema": {k: t for k, t in nvidias.items() if k != "synthesis.b4.const"}}, "no whole generator"),
        ({"g_ema": state | {"convs.1.activate.bias": torch.ones(())}}, "tensors of other shapes"),
        ({"g_ema": state | {"style.2.weight": torch.ones(W, W + 1)}}, "tensors of other shapes"),
        ({"g_ema": nvidias | {"mapping.embed.weight": torch.ones(W)}}, "tensors of other shapes"),
        ({"g_ema": nvidias | {"mapping.embed.weight": torch.ones(W, 5)}}, r"has no mapping\.embed\.bias"),
        ({"g_ema": nvidias | dict.fromkeys(biases, torch.ones(100_000))}, "does not fit"),
        ({"g_ema": high}, "more than 4096 pixels"),
    ):
        with pytest.raises(LimnerError, match=match):
            built(nets)
    with pytest.raises(LimnerError, match="has no part 'D'; it has g_ema"):
        stylegan2("w.pt", {"g_ema": state}, "D")


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


def hostile(folder: Path, nvidia: Any) -> dict[str, bytes]:
    """Files that would write `folder`/marker, fill the memory or crash if they were read as pickles are."""
    marker = str(folder / "marker")
    source = f"open({marker!r}, 'w')"
    script = folder / "script.py"
    script.write_text(source, encoding="utf-8")
    shell = f"touch {marker}"
    calls = {
        "system": Call(os.system, shell),
        "popen": Call(os.popen, shell),
        "process": Call(subprocess.Popen, ["touch", marker]),
        "output": Call(subprocess.check_output, ["touch", marker]),
        "eval": Call(eval, source),
        "exec": Call(exec, source),
        "touch": Call(Path.touch, Path(marker)),
        "open": Call(open, marker, "w"),
        "mkdir": Call(os.mkdir, marker),
        "copy": Call(shutil.copy, str(script), marker),
        "path": Call(runpy.run_path, str(script)),
        "import": Call(importlib.import_module, "os"),
        "partial": Call(functools.partial, os.system, shell),
        "caller": Call(operator.methodcaller, "system", shell),
        "getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "compile": Call(builtins.compile, source, "x", "exec"),
        "loads": Call(pickle.loads, pickle.dumps(Call(os.system, shell))),
        "save": Call(torch.save, 0, marker),
        "hub": Call(torch.hub.load, marker, "x"),
        "jit": Call(torch.jit.load, marker),
        "load": Call(torch.load, marker),  # noqa: TID251
    }
    files = {name: pickle.dumps({"G_ema": call}) for name, call in calls.items()}
    legacy, archive = io.BytesIO(), io.BytesIO()
    torch.save(Call(os.system, shell), legacy, _use_new_zipfile_serialization=False)
    torch.save({"g_ema": {"a": torch.ones(2)}, "args": argparse.Namespace(a=Call(os.system, shell))}, archive)
    inner = Call(torch.storage._load_from_bytes, legacy.getvalue())
    big = torch.ones(2)
    rebuild = torch._utils._rebuild_tensor_v2

    class Moved(Call):
        """A tensor that asks for more numbers of its storage once it is made."""

        def __reduce__(self) -> Any:
            return rebuild, (typed, 0, (2,), (1,), False, {}), (typed, 0, (1 << 20,), (1,))

    large = Call(rebuild, big.untyped_storage(), 0, (1 << 20, 1 << 20), (1, 1), False, {})
    typed = torch.storage.TypedStorage(wrap_storage=big.untyped_storage(), dtype=big.dtype)
    beyond = Call(rebuild, typed, 0, (1 << 33,), (1,), False, {})
    files |= {
        "source": pickle.dumps({"G_ema": nvidia({"_parameters": {}}, source)}),
        "bytes": pickle.dumps({"G_ema": {"a": inner}}),
        "settings": archive.getvalue(),
        "untyped": pickle.dumps({"G_ema": {"a": large}}),
        "beyond": pickle.dumps({"G_ema": {"a": beyond}}),
        "moved": pickle.dumps({"G_ema": {"a": Moved(rebuild)}}),
        "protocol 0": b"cos\nsystem\n(S'" + shell.encode() + b"'\ntR.",
        "instance": b"\x80\x02(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict000h\x00h\x01\x93\x8c"
        + bytes([len(shell)])
        + shell.encode()
        + b"\x85R.",
        "attributes": b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}U\x08functionNs\x86b.",
        "class": b"\x80\x02ctraining.networks\nG\n}U\x05stateK\x01sb.",
        "dict": b"\x80\x02ccollections\nOrderedDict\n}U\x06updateK\x01sb.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02U\x01aQ.",
        "marks": b"\x80\x02" + b"(" * 2_000_000,
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\xff" * 8,
        "nested": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "cut": pickle.dumps({"G_ema": nvidia({"_parameters": {"a": torch.ones(64)}})})[:-40],
        "network": b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81.",
        "loop": b"\x80\x02}q\x00U\x01aq\x01h\x00s.",
        "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        "text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    }
    return files


@pytest.mark.filterwarnings("ignore")
def test_nothing_of_a_hostile_file_runs(tmp_path: Path, nvidia: Any) -> None:
    contents = hostile(tmp_path, nvidia)
    assert len(contents) >= 30
    files = []
    for name, content in contents.items():
        files.append(tmp_path / f"{name}.pkl")
        files[-1].write_bytes(content)
    (tmp_path / "out").mkdir()
    results = dict(zip(contents, foreign.convert(files, tmp_path / "out", objects=True), strict=True))
    read = {name: found for name, found in results.items() if not isinstance(found, LimnerError)}
    assert not read
    assert not (tmp_path / "marker").exists()
    for error in results.values():
        assert str(error).isprintable()
        assert len(str(error)) < 320
    assert "os.system" in str(results["memo"]) or "posix.system" in str(results["memo"])
    assert "TensorFlow" in str(results["network"])
    assert "larger than its numbers" in str(results["beyond"])
    assert "larger than the file" in str(results["moved"])
    assert "attributes of functions" in str(results["attributes"])


@pytest.mark.parametrize("protocol", [2, 3])
def test_files_of_before_pytorch_1_6_are_read(tmp_path: Path, protocol: int) -> None:
    state = {"a.weight": torch.randn(3, 2), "a.bias": torch.randn(3)}
    file = tmp_path / "old.pt"
    torch.save({"g_ema": state}, file, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    found = weights.read_nets(file)["g_ema"]
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], t) for k, t in state.items())
