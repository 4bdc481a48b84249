"""Facts of style transfer in one pass, and of painting files with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.color import rgb_to_lab
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

import limner
from limner.config.import_weights import import_weights
from limner.core.batch import Styled, Unpaired
from limner.core.errors import LimnerError
from limner.core.inference import stylised
from limner.losses import style
from limner.models.adain import AdaIN
from limner.models.fast_style import FastStyle
from limner.nets.style import Decoder
from limner.painting import paint


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("one-pass")
    for side, name in (("photos", "china.jpg"), ("paintings", "flower.jpg")):
        (folder / side).mkdir()
        whole = Image.fromarray(load_sample_image(name)).resize((160, 106))
        for k in range(12):
            whole.crop((8 * k, 4 * k, 8 * k + 48, 4 * k + 48)).save(folder / side / f"{k}.png")
    g, drawn = torch.Generator().manual_seed(0), {}
    for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128)):
        drawn[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
        drawn[f"conv{n}.bias"] = torch.zeros(b)
    save_file(drawn, folder / "vgg.safetensors")
    return {p.stem: p for p in folder.iterdir()}


SHORT: dict[str, Any] = {"device": "cpu", "threads": 1, "size": 32, "batch": 4, "samples": 4, "images": 240}


@pytest.fixture(scope="module")
def fast(files: dict[str, Path]) -> Path:
    chosen = SHORT | {"data": f"{files['photos']}/", "style": str(files["paintings"] / "0.png")}
    run = limner.train("fast-style", out=files["vgg"].parent / "fast", weights=str(files["vgg"]), **{
        "T.width": 8, "T.blocks": 1, "optim.T.lr": 3e-3, "data.style_size": 32}, **chosen)  # fmt: skip
    return run.path


@pytest.fixture(scope="module")
def any_style(files: dict[str, Path]) -> Path:
    chosen = SHORT | {"a": f"{files['photos']}/", "b": f"{files['paintings']}/", "weights": str(files["vgg"])}
    where = files["vgg"].parent / "adain"
    return limner.train("adain", out=where, **{"decoder.layer": "relu2_1", "optim.decoder.lr": 1e-3}, **chosen).path


@pytest.mark.parametrize("kind", ["fast", "any_style"])
def test_the_loss_falls_and_the_report_says_what_the_rows_are(kind, request):
    run = limner.Run(request.getfixturevalue(kind))
    losses = [line["loss/T" if kind == "fast" else "loss/decoder"] for line in run.metrics()]
    assert losses[-1] < 0.8 * losses[0]
    assert "stylised images" in (run.path / "report.html").read_text()


def test_a_folder_is_stylised_in_the_learned_style(fast, tmp_path, files):
    odd = tmp_path / "in"
    odd.mkdir()
    Image.fromarray(load_sample_image("china.jpg")).resize((53, 37)).save(odd / "odd.jpg")
    written = paint(fast, odd, tmp_path / "out", device="cpu")
    assert [p.name for p in written] == ["odd.jpg"]
    painted = Image.open(written[0])
    assert painted.size == (53, 37)
    output = painted.getexif()[0x010E]
    assert output.startswith("limner stylise: fast_style in the style that it learnt; VGG-19 of vgg.safetensors, whose")
    with pytest.raises(LimnerError, match="one style that it learnt"):
        paint(fast, odd, tmp_path / "out", files["paintings"] / "0.png", device="cpu")


def test_any_style_image_works_and_strength_interpolates(any_style, tmp_path, files):
    photo, painting = files["photos"] / "0.png", files["paintings"] / "5.png"
    result = {}
    for strength in (0.0, 0.5, 1.0):
        (path,) = paint(any_style, photo, tmp_path / f"{strength}.png", painting, strength=strength, device="cpu")
        result[strength] = np.asarray(Image.open(path)).astype(float)
    output = Image.open(path).getexif()[0x010E]
    assert output.startswith(
        "limner stylise: adain in the style of 5.png; VGG-19 of vgg.safetensors, whose SHA-256 begins"
    )
    near, far = (np.abs(result[s] - result[0.0]).mean() for s in (0.5, 1.0))
    assert 0 < near < far
    with pytest.raises(LimnerError, match="name a painting too"):
        paint(any_style, photo, tmp_path / "x.png", device="cpu")


def pixels(path: Path) -> torch.Tensor:
    """(1,3,H,W) in [-1,1]."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1


def test_a_style_with_a_share_of_0_has_no_effect(any_style, tmp_path, files):
    photo, two = files["photos"] / "3.png", [files["paintings"] / "1.png", files["paintings"] / "9.png"]
    result = {}
    for name, styles, shares in (
        ("first", two[:1], None), ("second", two[1:], None), ("all first", two, [2.0, 0.0]), ("both", two, None)
    ):  # fmt: skip
        (path,) = paint(any_style, photo, tmp_path / f"{name}.png", styles, style_shares=shares, device="cpu")
        result[name] = pixels(path)
    torch.testing.assert_close(result["all first"], result["first"])
    apart = (result["first"] - result["second"]).abs().mean()
    assert all(0 < (result["both"] - result[k]).abs().mean() < apart for k in ("first", "second"))
    with pytest.raises(LimnerError, match="style_shares needs 2 numbers"):
        paint(any_style, photo, tmp_path / "x.png", two, style_shares=[1.0], device="cpu")


@pytest.mark.parametrize("kind", ["fast", "any_style"])
def test_colours_can_be_kept_and_the_size_chosen(kind, request, tmp_path, files):
    model, photo = request.getfixturevalue(kind), files["photos"] / "6.png"
    style = [] if kind == "fast" else files["paintings"] / "1.png"
    plain, kept, small = (
        pixels(paint(model, photo, tmp_path / f"{n}.png", style, device="cpu", **options)[0])
        for n, options in (("plain", {}), ("kept", {"keep_colours": True}), ("small", {"size": 24}))
    )
    assert small.shape == (1, 3, 24, 24)
    whole, painted, both = (rgb_to_lab((x + 1) / 2) for x in (pixels(photo), plain, kept))
    assert (both - painted)[:, 0].abs().mean() < 3  # of 100; what cannot be shown in these colours is clipped
    assert (both - whole)[:, 1:].abs().mean() < 0.5 * (painted - whole)[:, 1:].abs().mean()


def test_a_photograph_can_be_given_by_its_name(fast, tmp_path):
    (path,) = paint(fast, "china", tmp_path / "out", size=64, device="cpu")
    assert path.name == "china.png"
    assert Image.open(path).size == (64, 43)


def test_invalid_labels_and_options_are_refused(fast, any_style, tmp_path, files):
    photo = files["photos"] / "0.png"
    with pytest.raises(LimnerError, match="strength and style_shares are for adain and wct"):
        paint(fast, photo, tmp_path / "x.png", strength=0.5, device="cpu")
    with pytest.raises(LimnerError, match="strength: input should be greater than or equal to 0"):
        paint(any_style, photo, tmp_path / "x.png", photo, strength=-1, device="cpu")
    with pytest.raises(LimnerError, match=r"no\.png"):
        paint(any_style, photo, tmp_path / "x.png", files["photos"] / "no.png", device="cpu")


def test_a_tiny_image_is_stylised(fast, any_style, files, tmp_path):
    Image.new("RGB", (3, 2), (200, 30, 40)).save(tmp_path / "tiny.png")
    for kind, painting in ((fast, []), (any_style, files["paintings"] / "1.png")):
        (path,) = paint(kind, tmp_path / "tiny.png", tmp_path / f"{kind.name}.png", painting, device="cpu")
        assert Image.open(path).size == (3, 2)


def test_fast_style_takes_one_style(files, tmp_path):
    two = f"{files['paintings'] / '0.png'},{files['paintings'] / '1.png'}"
    with pytest.raises(LimnerError, match="learns one style"):
        limner.train("fast-style", out=tmp_path / "two", weights=str(files["vgg"]), data=f"{files['photos']}/",
                     style=two, **SHORT)  # fmt: skip


def test_models_without_stylisation_are_refused(tmp_path):
    run = limner.train("ae-mnist", out=tmp_path / "ae", data="digits", images=64, batch=32, device="cpu")
    with pytest.raises(LimnerError, match="does not paint"):
        paint(run.path, "a.png", tmp_path / "b.png", device="cpu")


def test_a_folder_through_the_command_line_says_what_it_left_out(any_style, files, tmp_path, monkeypatch, capsys):
    import sys

    from limner.cli import main

    (tmp_path / "in").mkdir()
    Image.open(files["photos"] / "1.png").save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"nothing")
    (tmp_path / "in" / "c.tif").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:300])
    monkeypatch.chdir(tmp_path)
    words = ["stylise", "in/", str(files["paintings"] / "2.png"), f"model={any_style}", "device=cpu"]
    for out in ("in-stylised", "in-stylised-2"):  # numbered, so that the first is not overwritten
        monkeypatch.setattr(sys, "argv", ["limner", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        text = capsys.readouterr().out
        assert text.startswith(f"stylise: 1 picture, written to {out}\n2 left out: bad.jpg (not a ")
        assert "c.tif (" in text
        assert [path.name for path in (tmp_path / out).iterdir()] == ["a.png"]
    assert Image.open(tmp_path / "in-stylised" / "a.png").size == (48, 48)


def test_strength_1_has_the_statistics_of_the_style(files):
    """At strength 1 the target's moments are the style's, at strength 0 the decoder is given the picture's own maps."""
    torch.manual_seed(0)
    model = AdaIN(Decoder("relu2_1", shape=(3, 32, 32)), str(files["vgg"]), shape=(3, 32, 32))
    x, s = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 24, 40)
    recorded = []
    model.decoder.register_forward_hook(lambda module, args, out: recorded.append(args[0]))
    with torch.no_grad():
        stylised(model, x, [model.encode_features(s)])
        stylised(model, x, [model.encode_features(s)], strength=0.0)
        torch.testing.assert_close(style.moments(recorded[0])[0], style.moments(model.maps(s)["relu2_1"])[0])
        torch.testing.assert_close(recorded[1], model.maps(x)["relu2_1"])


def test_the_loss_of_adain(files):
    """Content against t, and means and deviations of every layer against the style's, with λ = 3; t is no variable."""
    torch.manual_seed(0)
    model = AdaIN(Decoder("relu2_1", shape=(3, 32, 32)), str(files["vgg"]), style_weight=3.0, shape=(3, 32, 32))
    x, s = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    losses: dict[str, torch.Tensor] = {}
    logs = model.step(iter([Unpaired(x, s)]), losses.__setitem__)
    t = style.adain(model.maps(x)["relu2_1"], model.maps(s)["relu2_1"])
    own, expected = model.maps(model.decoder(t)), model.maps(s)
    assert list(own) == ["relu1_1", "relu2_1"]
    content = (own["relu2_1"] - t).square().mean()
    paint_loss = torch.zeros(())
    for n in own:
        for moment in (lambda f: f.mean((2, 3)), lambda f: (f.var((2, 3), correction=0) + 1e-5).sqrt()):
            paint_loss = paint_loss + (moment(own[n]) - moment(expected[n])).square().mean()
    torch.testing.assert_close(logs["term/content"], content)
    torch.testing.assert_close(logs["term/style"], paint_loss)
    torch.testing.assert_close(losses["decoder"], content + 3 * paint_loss)


class Scaled(torch.nn.Module):
    """A net for one style that makes pictures paler."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_the_loss_of_fast_style(files):
    """α of half the squared distance of maps, β of the layers' mean style loss, γ of the roughness."""
    weights = {"content_weight": 2.0, "style_weight": 30.0, "smoothness": 0.5}
    model = FastStyle(Scaled(), str(files["vgg"]), **weights, shape=(3, 32, 32))
    x, s = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 24, 40) * 2 - 1
    losses: dict[str, torch.Tensor] = {}
    logs = model.step(iter([Styled(x, (s,), (None,))]), losses.__setitem__)
    vgg, _ = model._targets
    own, content, target = (vgg(v, ["relu1_1", "relu2_1"]) for v in (0.5 * x, x, s))
    kept = (own["relu2_1"] - content["relu2_1"]).square().mean() / 2
    painted = torch.zeros(())
    for n, f in own.items():
        g, a = (style.gram(m) / (m.shape[2] * m.shape[3]) for m in (f, target[n]))
        painted = painted + (g - a).square().sum((1, 2)).mean() / (4 * f.shape[1] ** 2) / 2
    rough = (x.diff(dim=3) / 2).square().mean() + (x.diff(dim=2) / 2).square().mean()
    for term, expected in (("content", kept), ("style", painted), ("variation", rough)):
        torch.testing.assert_close(logs[f"term/{term}"].detach(), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(losses["T"].detach(), 2 * kept + 30 * painted + 0.5 * rough, rtol=1e-4, atol=1e-7)


def test_stylised_images_have_the_same_size(files):
    """Whatever the decoder gives: beyond [-1,1] it is cut off, and so is what was added to make the sides even."""
    model = AdaIN(Decoder("relu2_1", shape=(3, 32, 32)), str(files["vgg"]), shape=(3, 32, 32)).eval()
    x = torch.rand(2, 3, 21, 35) * 2 - 1
    model.decoder.register_forward_hook(lambda module, args, out: 100 * out)
    with torch.no_grad():
        y = stylised(model, x, [model.encode_features(x[:1])])
    assert y.shape == x.shape
    assert float(y.abs().max()) == 1


def shared(name: str) -> Path:
    return Path(os.environ.get("LIMNER_DATA", "")).parent / "weights" / f"{name}.safetensors"


@pytest.mark.skipif(not shared("decoder_from_conv3_1").is_file(), reason="the published decoder is not at hand")
def test_the_published_decoder_inverts_the_maps(tmp_path):
    """Encode and decode without a style: about 30 dB, as published."""
    vgg = str(shared("vgg19_normalised_to_conv3_1"))
    out = import_weights("adain", shared("decoder_from_conv3_1"), tmp_path / "adain.safetensors", vgg=vgg)
    model = limner.load(out)
    assert isinstance(model, AdaIN)
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    x = torch.nn.functional.interpolate(photo, (256, 256), mode="bicubic", antialias=True).clamp(-1, 1)
    with torch.no_grad():
        y = stylised(model, x, [model.encode_features(x)], strength=0.0)
    assert float(10 * torch.log10(4 / (y - x).square().mean())) > 25
