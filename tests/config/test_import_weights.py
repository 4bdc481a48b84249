"""The references' key layouts, built from their published descriptions, compute what limner's nets compute."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import limner
from limner.cli import main
from limner.config.import_weights import KINDS, import_weights
from limner.core.errors import LimnerError
from limner.core.progress import Silent
from limner.nets._layers import AlwaysOnDropout

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": lambda n: nn.Identity(),
}


class Level(nn.Module):
    """One level of the published U-Net: downsampling, the next level, upsampling, and a skip connection.

    The description (Isola et al. 2017, appendix, and the key layout of the released files): the outermost level is
    [down, next, ReLU, up, tanh], the innermost [LeakyReLU, down, ReLU, up, norm], the others
    [LeakyReLU, down, norm, next, ReLU, up, norm, sometimes dropout].
    """

    def __init__(self, outer: int, inner: int, inputs: int, below: Level | None, first: bool, norm: str) -> None:
        super().__init__()
        self.first = first
        bias = norm == "instance"
        outer_norm, inner_norm = (partial(NORMS[norm], n) for n in (outer, inner))
        down = nn.Conv2d(inputs, inner, 4, 2, 1, bias=bias)
        if first:
            parts = [down, below, nn.ReLU(), nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1), nn.Tanh()]
        elif below is None:
            parts = [
                nn.LeakyReLU(0.2),
                down,
                nn.ReLU(),
                nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias),
                outer_norm(),
            ]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            parts = [nn.LeakyReLU(0.2), down, inner_norm(), below, nn.ReLU(), up, outer_norm()]
        self.model = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) if self.first else torch.cat([x, self.model(x)], 1)


class PublishedUNet(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int, depth: int, norm: str) -> None:
        super().__init__()
        widths = [width * min(2**k, 8) for k in range(depth)]
        level = None
        for k in reversed(range(1, depth)):
            level = Level(widths[k - 1], widths[k], widths[k - 1], level, False, norm)
        self.model = Level(outputs, width, inputs, level, True, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class PublishedBlock(nn.Module):
    def __init__(self, channels: int, norm: str, dropout: bool) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, channels, channels, 3, bias=norm == "instance")
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), conv(), NORMS[norm](channels), nn.ReLU(), *[nn.Dropout(0.5)] * dropout,
            nn.ReflectionPad2d(1), conv(), NORMS[norm](channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class Filter(nn.Module):
    """CUT's anti-aliased resizing, by the weights of its description: 1 2 1 downwards, 1 3 3 1 upwards."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) if up else torch.tensor([1.0, 2.0, 1.0])
        self.up, filt = up, row[:, None] * row[None, :]
        self.register_buffer("filt", (filt / filt.sum() * (4 if up else 1))[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        if not self.up:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=n)
        return F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.filt, None, 2, 3, groups=n)


def published_resnet(
    width: int, blocks: int, norm: str = "instance", dropout: bool = False, filters: str = "", channels: int = 3
) -> nn.Module:
    w, bias = width, norm == "instance"

    def down(a: int) -> list[nn.Module]:
        stride = 1 if "down" in filters else 2
        return [
            nn.Conv2d(a, 2 * a, 3, stride, 1, bias=bias), NORMS[norm](2 * a), nn.ReLU(),
            *([Filter(2 * a, up=False)] if "down" in filters else []),
        ]  # fmt: skip

    def up(a: int) -> list[nn.Module]:
        after = [NORMS[norm](a // 2), nn.ReLU()]
        if "up" in filters:
            return [Filter(a, up=True), nn.Conv2d(a, a // 2, 3, 1, 1, bias=bias), *after]
        return [nn.ConvTranspose2d(a, a // 2, 3, 2, 1, 1, bias=bias), *after]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(
                nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7, bias=bias), NORMS[norm](w), nn.ReLU(),
                *down(w), *down(2 * w),
                *(PublishedBlock(4 * w, norm, dropout) for _ in range(blocks)),
                *up(4 * w), *up(2 * w),
                nn.ReflectionPad2d(3), nn.Conv2d(w, channels, 7), nn.Tanh(),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

    return Net()


def randomised(net: nn.Module, seed: int = 3) -> nn.Module:
    """Sets weights and statistics large enough that a wrong layer changes the output."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.1 + (0 if p.ndim > 1 else 0.3))
        for name, b in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.copy_(torch.rand(b.shape, generator=g) + 0.3)
    return net


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path)
    return path


def computes_the_same(model: object, net: nn.Module, size: tuple[int, int], channels: int = 3) -> None:
    """On images of any size: the published net rounds up, and limner crops."""
    x = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(x)[..., : size[0], : size[1]]
        torch.testing.assert_close(model.translate(x), expected, rtol=1e-4, atol=1e-5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("depth", [3, 6])
def test_a_published_u_net_computes_the_same(tmp_path: Path, norm: str, depth: int) -> None:
    net = randomised(PublishedUNet(1, 3, 4, depth, norm)).train()  # as released: the statistics of one picture
    file = saved(tmp_path / "latest_net_G.safetensors", net.state_dict())
    model = limner.load(import_weights("pix2pix", file, tmp_path / "m.safetensors", size=64, dropout=0.0))
    assert model.source == (1, 64, 64)
    assert model.shape == (3, 64, 64)
    computes_the_same(model, net, (64, 64), 1)
    if norm == "batch":
        file = saved(file, net.state_dict())  # whose statistics that pass has changed
        running = limner.load(import_weights("pix2pix", file, tmp_path / "e.safetensors", eval=True))
        computes_the_same(running, net.eval(), (64, 128), 1)


@pytest.mark.parametrize("filters", ["", "down", "up", "down up"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_a_published_resnet_computes_the_same(tmp_path: Path, norm: str, filters: str) -> None:
    """Of CycleGAN and pix2pix, and with filters of CUT: in training mode as the references test, and with --eval."""
    net = randomised(published_resnet(4, 6, norm, filters=filters))
    file = saved(tmp_path / "a.safetensors", net.state_dict())
    kind = "cut" if filters else "cyclegan"
    for number, use_running in enumerate([False, True] if norm == "batch" else [False]):
        model = limner.load(import_weights(kind, file, tmp_path / f"{number}.safetensors", eval=use_running))
        net.load_state_dict(load_file(file))
        net.train(not use_running)
        for size in ((32, 32), (61, 47), (9, 6)):
            computes_the_same(model, net, size)


def test_both_directions_are_one_model(tmp_path: Path) -> None:
    there, back = randomised(published_resnet(4, 6)), randomised(published_resnet(4, 9), seed=4)
    old = {f"module.{k}": v for k, v in there.state_dict().items()}  # as DataParallel saves it
    old["module.model.2.running_mean"] = torch.zeros(4)  # as files of old versions carry it
    old["module.model.2.num_batches_tracked"] = torch.tensor(7)
    a, b = saved(tmp_path / "a.safetensors", old), saved(tmp_path / "b.safetensors", back.state_dict())
    model, x = limner.load(import_weights("cyclegan", a, tmp_path / "m.safetensors", back=b)), torch.randn(2, 3, 33, 30)
    with torch.no_grad():
        torch.testing.assert_close(model.translate(x, "b"), there(x)[..., :33, :30], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.translate(x, "a"), back(x)[..., :33, :30], rtol=1e-4, atol=1e-5)
    one_way = limner.load(import_weights("cyclegan", a, tmp_path / "one.safetensors"))
    assert one_way.domains == ("b",)


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_dropout_is_read_off_the_blocks_and_said(tmp_path: Path) -> None:
    """Of the reference's pix2pix with a ResNet: its test keeps dropout on, unless it has --eval."""
    net = randomised(published_resnet(4, 6, "batch", dropout=True)).eval()
    file, said = saved(tmp_path / "a.safetensors", net.state_dict()), Said()

    def dropouts(out: Path) -> list[float]:
        return [m.p for m in limner.load(out).modules() if isinstance(m, AlwaysOnDropout)]

    assert dropouts(import_weights("pix2pix", file, tmp_path / "m.safetensors", progress=said)) == [0.5] * 6
    assert "statistics of each picture" in said.lines[0]
    assert "dropout of 0.5 stays on" in said.lines[0]
    assert dropouts(import_weights("pix2pix", file, tmp_path / "m.safetensors", dropout=0.0)) == []
    out = import_weights("pix2pix", file, tmp_path / "m.safetensors", eval=True)
    computes_the_same(limner.load(out), net, (32, 40))
    unet = saved(tmp_path / "u.safetensors", randomised(PublishedUNet(3, 3, 2, 7, "batch")).state_dict())
    assert dropouts(import_weights("pix2pix", unet, tmp_path / "m.safetensors")) == [0.5] * 2
    assert dropouts(import_weights("cyclegan", unet, tmp_path / "m.safetensors")) == []  # its recipe has none


def test_biases_before_batch_norm_change_nothing(tmp_path: Path) -> None:
    """Early versions of the reference had them; a scale of instance norm is the same as batch norm of one image."""
    net = randomised(published_resnet(4, 6, "batch"))
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and conv.bias is None:
            conv.register_parameter("bias", nn.Parameter(torch.randn(conv.out_channels) * 0.5))
    file = saved(tmp_path / "a.safetensors", net.state_dict())
    running = limner.load(import_weights("pix2pix", file, tmp_path / "m.safetensors", eval=True))
    computes_the_same(running, net.eval(), (29, 33))
    computes_the_same(limner.load(import_weights("pix2pix", file, tmp_path / "m.safetensors")), net.train(), (29, 33))


def resnet_state() -> dict[str, torch.Tensor]:
    return randomised(published_resnet(4, 6)).state_dict()


def patchgan_state() -> dict[str, torch.Tensor]:
    d = nn.Sequential(nn.Conv2d(3, 8, 4), nn.LeakyReLU(), nn.Conv2d(8, 16, 4), nn.LeakyReLU(), nn.Conv2d(16, 1, 4))
    return {f"model.{k}": t for k, t in d.state_dict().items()}


def without_bias(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: t for k, t in state.items() if k != "model.10.conv_block.1.weight"}


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        ("pix2pix", lambda: nn.Linear(2, 2).state_dict(), "no convolutions"),
        (
            "pix2pix",
            lambda: nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in "123")).state_dict(),
            "3 convolutions.*decoder",
        ),
        ("cyclegan", lambda: dict(list(resnet_state().items())[:9]), "convolutions|layers"),
        ("cyclegan", lambda: without_bias(resnet_state()), r"has a bias model\.10\.conv_block\.1\.bias and no weight"),
        ("cyclegan", patchgan_state, "looks like a PatchGAN discriminator; give the generator's file"),
        ("fast-style", resnet_state, "looks like a ResNet generator.*limner import cyclegan"),
        ("dcgan", lambda: PublishedUNet(3, 3, 2, 3, "batch").state_dict(), "looks like a U-Net.*limner import pix2pix"),
        (
            "r3gan",
            lambda: {"main.0.weight": torch.ones(9, 8, 4, 4), "main.1.weight": torch.ones(8)},
            "limner import dcgan",
        ),
        ("adain", lambda: published_resnet(2, 1, filters="up").state_dict(), "looks like a CUT"),
        ("cyclegan", lambda: {k: t * torch.nan for k, t in resnet_state().items()}, "not finite"),
        ("dcgan", lambda: {"main.0.weight": torch.ones(9, 8, 4, 4), "main.1.weight": torch.ones(8)}, "DCGAN"),
        ("cyclegan", lambda: {k: t[:0] for k, t in resnet_state().items()}, "is empty"),
        ("pix2pix", lambda: {"9" * 190: torch.ones(2)}, "no generator"),
    ],
)
def test_other_nets_are_refused_by_what_they_look_like(
    tmp_path: Path, kind: str, content: Callable[[], dict[str, torch.Tensor]], match: str
) -> None:
    vgg = {"vgg": "vgg19"} if kind == "adain" else {}
    with pytest.raises(LimnerError, match=match) as error:
        import_weights(kind, saved(tmp_path / "w.safetensors", content()), tmp_path / "m.safetensors", **vgg)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m.safetensors").exists()


def test_the_command_says_what_it_decided_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["limner", "import", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    file = saved(tmp_path / "G.safetensors", published_resnet(4, 6, "batch").state_dict())
    code, said = run("pix2pix", file, tmp_path / "m.safetensors")
    assert code == 0
    assert "statistics of each picture" in said
    assert f"limner apply {tmp_path / 'm.safetensors'} IN OUT" in said
    code, said = run("pix2pix", file, tmp_path / "m.safetensors", "--eval")
    assert code == 0
    assert "statistics" not in said
    code, said = run("dcgan", file, tmp_path / "m.safetensors")
    assert code == 2
    assert "limner import cyclegan" in said
    _, said = run("--help")
    assert all(kind in said for kind in KINDS)


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", resnet_state())
    for kind, settings, match in (
        ("stylegan", {}, "kind of weights"),
        ("dcgan", {"back": file}, "back is for cyclegan"),
        ("r3gan", {"size": 64}, "leave size out"),
        ("fast-style", {"eval": True}, "eval is for"),
        ("cyclegan", {"size": 4}, "8 to 4096 pixels, got 4"),
        ("cyclegan", {"eval": True}, None),
    ):
        if match is None:
            import_weights(kind, file, tmp_path / "m.safetensors", **settings)  # instance norm has no other statistics
            continue
        with pytest.raises(LimnerError, match=match):
            import_weights(kind, file, tmp_path / "m.safetensors", **settings)
    with pytest.raises(LimnerError, match="would overwrite the weights"):
        import_weights("cyclegan", file, file)
    with pytest.raises(LimnerError, match="there is no file"):
        import_weights("pix2pix", tmp_path / "none.pth", tmp_path / "m.safetensors")
    with pytest.raises(LimnerError, match="ends in"):
        import_weights("cyclegan", file, tmp_path / "m.pth")


def test_a_damaged_state_dict_never_ends_in_a_traceback(tmp_path: Path) -> None:
    """Sixty mutants of real layouts: tensors renamed, dropped, of other shapes and types."""
    rng = Random(0)
    states = [
        resnet_state(),
        PublishedUNet(3, 3, 2, 3, "batch").state_dict(),
        published_resnet(2, 1, "batch").state_dict(),
    ]
    accepted, out = 0, tmp_path / "m.safetensors"
    for number in range(60):
        state = dict(rng.choice(states))
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(list(state))
            tensor = state.pop(key)
            change = rng.randrange(6)
            state[key] = tensor
            if change == 0:
                state[rng.choice(["", "x", "model.", "9" * 180, "ü.weight", "model.1.weight.weight"]) + key] = (
                    state.pop(key)
                )
            elif change == 1:
                state.pop(key)
            elif change == 2 and tensor.ndim:
                state[key] = tensor[: max(1, len(tensor) // 2)]
            elif change == 3:
                state[key] = tensor.flatten()
            elif change == 4:
                state[key] = rng.choice([tensor.half(), tensor.long(), tensor.bool(), tensor.double()])
            else:
                state[key] = torch.ones([2] * rng.randint(0, 7))
        file = saved(tmp_path / "w.safetensors", state)
        for kind in ("cyclegan", "dcgan", "r3gan", "fast-style", "wct"):
            vgg = {"vgg": "nowhere.safetensors"} if kind == "wct" else {}
            with contextlib.suppress(LimnerError):
                import_weights(kind, file, out, eval=kind == "cyclegan" and number % 2 == 0, **vgg)
                accepted += 1
    assert accepted < 30
