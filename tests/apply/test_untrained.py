"""Tasks by a model that denoises, on a closed-form one: its data are four pictures, so every answer is known.

E[x_0 | x] of a finite set of pictures is their mean, weighted by the softmax of -|x - x_0|² / 2σ².
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from limner.apply import tasks
from limner.apply.restore import Restorer, noise_level
from limner.apply.windows import windowed
from limner.cli import main
from limner.core.batch import to_float, to_uint8
from limner.core.condition import Classes, Condition
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel

H, W = 8, 12


class Known(GenerativeModel):
    """Four pictures of a shape, which are all that there is."""

    sigma_data, sigma_min, sigma_max = 0.5, 0.002, 80.0

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.shape = (channels, H, W)
        self.spec: Any = SimpleNamespace(name="known", to_dict=lambda: {"shape": list(self.shape)})
        coarse = torch.randint(0, 256, (4, channels, H // 2, W // 2), generator=torch.Generator().manual_seed(1))
        levels = F.interpolate(coarse.float(), (H, W), mode="bilinear").round().byte()
        self.pictures = nn.Parameter(to_float(levels), requires_grad=False)

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        assert x.shape[1:] == self.shape
        distances = (x[:, None] - self.pictures).square().flatten(2).sum(2)  # (B,4)
        logits = -distances / (2 * sigma[:, None] ** 2)
        if y is not None:
            logits = logits + torch.where(torch.arange(4) == y[:, None], 0.0, -1e30)
        return torch.einsum("bk,kchw->bchw", logits.softmax(1), self.pictures)


class KnownByClass(Known):
    condition: Condition = Classes(["a", "b", "c", "d"])


class Coded(Known):
    """Its codes are the pictures themselves."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x + 1

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z - 1


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[GenerativeModel], GenerativeModel]:
    """Makes `limner apply` take a model for the checkpoint of any path."""

    def set_model(model: GenerativeModel) -> GenerativeModel:
        monkeypatch.setattr(tasks, "load_model", lambda *_: model)
        return model

    return set_model


Use = Callable[[GenerativeModel], Any]


def save(x: Tensor, path: Path, alpha: Tensor | None = None) -> Path:
    """A picture (C,H,W) in [-1,1]; alpha (H,W) in [0,1]."""
    path.parent.mkdir(exist_ok=True, parents=True)
    values = to_uint8(x).permute(1, 2, 0).numpy()
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    if alpha is not None:
        image.putalpha(Image.fromarray((alpha * 255).byte().numpy()))
    image.save(path)
    return path


def read(path: Path) -> Tensor:
    """(C,H,W) uint8."""
    values = np.asarray(Image.open(path))
    return torch.from_numpy(values.copy())[..., None].flatten(2).permute(2, 0, 1)


def right_half() -> Tensor:
    mask = torch.zeros(1, 1, H, W)
    mask[..., W // 2 :] = 1
    return mask


def test_inpainting_finds_what_was_there() -> None:
    model = Known()
    x, mask = model.pictures.data, right_half().expand(4, -1, -1, -1)
    y = Restorer(model).inpaint(torch.where(mask > 0, 0.3, x), mask)
    assert torch.equal(y[..., : W // 2], x[..., : W // 2])
    assert (y - x).abs().max() < 0.01


def test_a_picture_is_the_same_in_any_batch_of_pictures_and_windows() -> None:
    model = Known()
    x, mask = torch.zeros(5, 3, H, W), torch.ones(5, 1, H, W)
    all_at_once = Restorer(model, seed=3).inpaint(x, mask)
    assert torch.equal(all_at_once, Restorer(model, seed=3, batch=2).inpaint(x, mask))
    assert torch.equal(all_at_once[:2], Restorer(model, seed=3).inpaint(x[:2], mask[:2]))
    assert len({tuple(p.flatten().tolist()) for p in to_uint8(all_at_once)}) > 1
    assert not torch.equal(all_at_once, Restorer(model, seed=4).inpaint(x, mask))


def test_edit_changes_nothing_at_0_and_everything_at_1() -> None:
    model = Known()
    x = model.pictures.data[:1] * 0.8
    assert torch.equal(Restorer(model).edit(x, 0.0), x)
    assert (Restorer(model).edit(x, 0.3) - model.pictures[:1]).abs().max() < 0.01  # the likely picture nearest to it
    drawn = {
        int((Restorer(model, seed=s).edit(x, 1.0) - model.pictures).abs().amax((1, 2, 3)).argmin()) for s in range(12)
    }
    assert len(drawn) > 1


def test_upscaling_and_colourising_agree_with_what_is_known() -> None:
    model = Known()
    small = F.avg_pool2d(model.pictures.data, 2)
    large = Restorer(model).upscale(small, 2)
    assert (F.avg_pool2d(large, 2) - small).abs().max() < 1e-5
    assert (large - model.pictures).abs().max() < 0.01
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (luminance * model.pictures).sum(1, keepdim=True)
    assert (Restorer(model).colourise(grey) - model.pictures).abs().mean() < 0.15  # grey by luma, not by luminance


def test_denoising_gives_the_mean_or_an_example() -> None:
    model = Known()
    noisy = model.pictures.data + 0.2 * torch.randn(4, 3, H, W, generator=torch.Generator().manual_seed(0))
    for mean in (True, False):
        assert (Restorer(model).denoise(noisy, 0.1, mean=mean) - model.pictures).abs().max() < 0.01
    middle = model.pictures.data[:2].mean(0, keepdim=True)
    both = Restorer(model).denoise(middle, 1.0)
    assert torch.allclose(both, model.denoise(middle, torch.tensor([2.0])))


def test_the_class_decides() -> None:
    model = KnownByClass()
    x, mask = torch.zeros(2, 3, H, W), torch.ones(2, 1, H, W)
    for y in ("c", 2, [2, 2]):
        assert (Restorer(model, y=y).inpaint(x, mask) - model.pictures[2]).abs().max() < 0.01
    y = Restorer(model, y=["a", "d"]).inpaint(x, mask)
    assert (y - model.pictures[[0, 3]]).abs().max() < 0.01


def test_noise_is_measured() -> None:
    x = torch.linspace(-0.5, 0.5, 64).expand(2, 3, 64, 64)
    for sigma in (0.02, 0.1):
        noisy = x + 2 * sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(noise_level(noisy), torch.tensor(sigma), rtol=0.05)
    assert noise_level(x).max() < 1e-6


def test_windows_of_a_pixelwise_net_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in ((5, 30), (8, 12), (9, 13), (40, 3), (1, 1)):
        x = torch.randn(3, 2, *size, generator=generator)

        def net(part: Tensor, of: Tensor) -> Tensor:
            assert part.shape[2:] == (8, 12)
            return part + of.view(-1, 1, 1, 1)

        expected = x + torch.arange(3.0).view(-1, 1, 1, 1)
        assert torch.allclose(windowed(net, x, (8, 12), batch=4), expected, atol=1e-6)


def test_gradients_of_many_windows_are_those_of_one_pass() -> None:
    x = torch.randn(2, 1, 20, 30, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def net(part: Tensor, of: Tensor) -> Tensor:
        return part.sin() * part.mean((1, 2, 3), keepdim=True)

    few, many = (windowed(net, x, (8, 12), batch=batch) for batch in (1000, 3))
    assert torch.allclose(few, many, atol=1e-6)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (few, many)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_a_long_picture_is_worked_on_in_windows_that_agree(tmp_path: Path, use: Use) -> None:
    model = Known(1)
    model.pictures = nn.Parameter(torch.linspace(-0.9, 0.9, 4).view(4, 1, 1, 1).expand(4, 1, H, W), requires_grad=False)
    use(model)
    wide = torch.full((1, 2 * H, 5 * W), 0.3)
    mask = torch.zeros(1, 2 * H, 5 * W)
    mask[..., 2 * W : 3 * W] = 1
    a = save(torch.where(mask > 0, -1.0, wide), tmp_path / "a.png")
    options: dict[str, Any] = {"mask": save(2 * mask - 1, tmp_path / "mask.png"), "steps": 20, "device": "cpu"}
    tasks.apply("run", a, tmp_path / "b.png", **options)
    assert (read(tmp_path / "b.png").int() - 166).abs().max() <= 1
    tasks.apply("run", a, tmp_path / "c.png", side=2 * H, **options)  # at the picture's own size
    assert (read(tmp_path / "c.png").int() - 166).abs().max() <= 1


def test_a_folder_is_inpainted_with_its_masks(tmp_path: Path, use: Use) -> None:
    model = use(Known())
    x = model.pictures
    for i, name in enumerate(("a.png", "more/b.webp", "c.png")):
        save(x[i], tmp_path / "in" / name)  # PIL writes WebP with loss, which the mask's outside keeps
    large = F.interpolate(x[3:], scale_factor=3, mode="nearest")[0]
    save(large, tmp_path / "in" / "large.png")
    for name in ("a", "more/b"):
        save(2 * right_half()[0] - 1, tmp_path / "masks" / f"{name}.png")
    wide = F.interpolate(right_half(), scale_factor=3, mode="nearest")[0]
    save(2 * wide - 1, tmp_path / "masks" / "large.png")
    arguments: dict[str, Any] = {"task": "inpaint", "mask": tmp_path / "masks", "device": "cpu"}
    result = tasks.apply("run", tmp_path / "in", tmp_path / "out", **arguments)
    assert (result["task"], result["n"]) == ("inpaint", 3)
    assert [name for name, _ in result["skipped"]] == ["c.png"]
    assert result["notes"] == [f"holes were filled at {H}×{W} (1 picture)"]
    assert (read(tmp_path / "out" / "a.png") - to_uint8(x[0]).int()).abs().max() <= 1
    before, after = read(tmp_path / "in" / "large.png"), read(tmp_path / "out" / "large.png")
    assert torch.equal(after[..., : 3 * W // 2], before[..., : 3 * W // 2])
    coarse = F.avg_pool2d(after.float(), 3)
    assert (coarse - to_uint8(x[3]).float())[..., W // 2 :].abs().mean() < 20  # it was enlarged smoothly
    webp = read(tmp_path / "out" / "more" / "b.webp")
    assert torch.equal(webp[..., : W // 2], read(tmp_path / "in" / "more" / "b.webp")[..., : W // 2])
    with pytest.raises(LimnerError, match="3 results exist already"):
        tasks.apply("run", tmp_path / "in", tmp_path / "out", **arguments)
    tasks.apply("run", tmp_path / "in", tmp_path / "out", overwrite=True, **arguments)
    again = tasks.apply("run", tmp_path / "in" / "large.png", tmp_path / "alone.png", **arguments)
    assert again["n"] == 1
    assert torch.equal(read(tmp_path / "alone.png"), after)  # not a matter of what else is in the folder


def test_transparent_parts_are_filled_and_otherwise_alpha_stays(tmp_path: Path, use: Use) -> None:
    model = use(Known())
    cut = save(model.pictures[1], tmp_path / "cut.png", 1 - right_half()[0, 0])
    tasks.apply("run", cut, tmp_path / "whole.png", task="inpaint", device="cpu")
    assert Image.open(tmp_path / "whole.png").mode == "RGB"
    assert (read(tmp_path / "whole.png") - to_uint8(model.pictures[1]).int()).abs().max() <= 1
    tasks.apply("run", cut, tmp_path / "large.png", scale=3, device="cpu")  # the setting tells the task
    large = Image.open(tmp_path / "large.png")
    assert (large.mode, large.size) == ("RGBA", (3 * W, 3 * H))
    assert set(np.unique(np.asarray(large.getchannel("A"))[:, 3 * W // 2 + 4 :])) == {0}


def test_colours_are_not_lost(tmp_path: Path, use: Use) -> None:
    model = use(Known(1))
    save(model.pictures[0].expand(3, -1, -1), tmp_path / "in" / "neutral.png")
    save(Known(3).pictures[0], tmp_path / "in" / "red.png")
    result = tasks.apply("run", tmp_path / "in", tmp_path / "out", task="denoise", noise=0.1, device="cpu")
    assert (result["n"], result["skipped"][0][0]) == (1, "red.png")
    assert Image.open(tmp_path / "out" / "neutral.png").mode == "L"
    with pytest.raises(LimnerError, match="has colours, and this model knows grey pictures alone"):
        tasks.apply("run", tmp_path / "in" / "red.png", tmp_path / "red.png", task="edit", device="cpu")
    model = use(Known(3))
    save(model.pictures[0].mean(0, keepdim=True), tmp_path / "grey.png")
    for task, mode in {"denoise": "L", "upscale": "L", "colourise": "RGB", "edit": "RGB"}.items():
        tasks.apply("run", tmp_path / "grey.png", tmp_path / f"{task}.png", task=task, device="cpu")
        assert Image.open(tmp_path / f"{task}.png").mode == mode


def test_noise_is_estimated_and_said(tmp_path: Path, use: Use) -> None:
    model = use(Known())
    for i in range(4):
        save(model.pictures[i], tmp_path / "in" / f"{i}.png")
    result = tasks.apply("run", tmp_path / "in", tmp_path / "out", task="denoise", device="cpu")
    assert result["notes"][-1].startswith("noise was estimated: 0.")
    degraded = tasks.apply("run", tmp_path / "in", tmp_path / "out2", noise=0.1, degrade=True, device="cpu")
    assert degraded["notes"] == []
    for i in range(4):
        assert (read(tmp_path / "out2" / f"{i}.png") - to_uint8(model.pictures[i]).int()).abs().max() <= 1


def test_two_pictures_are_blended_or_one_becomes_the_other(tmp_path: Path, use: Use) -> None:
    model = use(Coded())
    a, b = (save(model.pictures[i], tmp_path / f"{i}.png") for i in range(2))
    mask = save(2 * right_half()[0] - 1, tmp_path / "mask.png")
    result = tasks.apply("run", a, tmp_path / "ab.png", blend=b, mask=mask, device="cpu")
    assert [Path(p).name for p in result["written"]] == ["ab.png", "ab-poisson.png"]
    tasks.apply("run", a, tmp_path / "row.png", task="interpolate", to=str(b), n=3, device="cpu")
    row = read(tmp_path / "row.png")
    assert row.shape == (3, H, 3 * W + 4)
    assert torch.equal(row[..., :W], to_uint8(model.pictures[0]))
    assert torch.equal(row[..., -W:], to_uint8(model.pictures[1]))
    tasks.apply("run", a, tmp_path / "frames/", task="interpolate", to=str(b), device="cpu")
    assert len(list((tmp_path / "frames").iterdir())) == 8


def test_a_class_may_be_said_to_reconstruct(tmp_path: Path, use: Use) -> None:
    class Plain(GenerativeModel):
        """A conditional autoencoder."""

        spec: Any = SimpleNamespace(name="plain", to_dict=lambda: {"shape": [1, H, W]})
        condition: Condition = Classes(["x", "y"])
        device = torch.device("cpu")  # type: ignore[assignment]

        def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return x

        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            return z * 0 + y.view(-1, 1, 1, 1)

    use(Plain())
    picture = save(torch.zeros(1, H, W), tmp_path / "a.png")
    with pytest.raises(LimnerError, match="needs the class of each picture, and files do not tell it; write y=CLASS"):
        tasks.apply("run", picture, tmp_path / "b.png", device="cpu")
    tasks.apply("run", picture, tmp_path / "b.png", y="y", device="cpu")
    assert int(read(tmp_path / "b.png").min()) == 255
    with pytest.raises(LimnerError, match="it can reconstruct or interpolate; a diffusion model can"):
        tasks.apply("run", picture, tmp_path / "c.png", task="inpaint", device="cpu")


def test_a_conditional_density_scores_pictures_of_unknown_classes(tmp_path: Path, use: Use) -> None:
    class Density(GenerativeModel):
        """The darker, the more ordinary."""

        spec: Any = SimpleNamespace(name="density", to_dict=lambda: {"shape": [1, H, W]})
        condition: Condition = Classes(["x", "y"])
        device = torch.device("cpu")  # type: ignore[assignment]

        def score_samples(self, x: Tensor) -> Tensor:
            return -x.flatten(1).sum(1)

    use(Density())
    for name, value in (("dark", -1.0), ("bright", 1.0)):
        save(torch.full((1, H, W), value), tmp_path / "in" / f"{name}.png")
    tasks.apply("run", tmp_path / "in", tmp_path / "out", task="anomaly", device="cpu")
    rows = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8").split()
    assert [row.split(",")[0] for row in rows] == ["picture", "bright.png", "dark.png"]


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        (Known, [], "known can do many tasks; name one: --task inpaint"),
        (Known, ["--task", "inpaintt"], "inpaint"),
        (Known, ["--task", "inpaint"], "which parts of a.png are missing"),
        (Known, ["--task", "edit", "--strength", "1.5"], "write a number from 0"),
        (Known, ["--task", "edit", "--scale", "2"], "scale is not for edit, as known does it; leave scale out"),
        (Known, ["--task", "edit", "--steps", "0"], "steps=0 is not possible; write 1 to 1000"),
        (Known, ["--task", "edit", "--steps", "1000000"], "steps=1000000 is not possible"),
        (Known, ["--task", "edit", "--y", "3"], "known is not conditional; leave y out"),
        (Known, ["--task", "edit", "--guidance", "2"], "known knows no classes to be guided by; leave guidance out"),
        (KnownByClass, ["--task", "edit", "--guidance", "2"], "guidance needs a class; write y=CLASS too"),
        (KnownByClass, ["--task", "edit", "--y", "z"], "there is no class"),
        (Known, ["--task", "edit", "--side", "4"], "write 8 or more"),
        (Known, ["--task", "upscale", "--scale", "1"], "write a whole number from 2 to 16"),
        (Known, ["--task", "denoise", "--noise", "0"], "write its standard deviation on the [0,1] scale"),
        (Known, ["--task", "edit", "--degrade"], "degrade is not for edit"),
        (Known, ["--task", "interpolate"], "known cannot interpolate"),
        (Coded, ["--task", "interpolate"], "give the first as the source and the other with --to FILE"),
        (Known, ["--task", "reconstruct"], "known cannot reconstruct; it can inpaint or edit or upscale"),
    ],
)
def test_what_is_not_possible_is_said_in_one_line(
    tmp_path: Path,
    use: Use,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: type[GenerativeModel],
    words: list[str],
    said: str,
) -> None:
    use(model())
    picture = save(Known().pictures[0], tmp_path / "a.png")
    command = ["limner", "apply", "run", str(picture), str(tmp_path / "out.png"), *words, "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
