"""Facts of style transfer by optimisation, with a VGG whose weights came from nowhere."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

import limner
from limner.core.batch import Styled
from limner.core.errors import LimnerError
from limner.core.optimisers import LBFGS, Adam
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.data import load
from limner.losses import style
from limner.models.style_transfer import StyleTransfer
from limner.painting import stylise


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("style")
    for k, name in (("content", "china.jpg"), ("style", "flower.jpg")):
        Image.fromarray(load_sample_image(name)).resize((60, 40)).save(folder / f"{k}.png")
    g, drawn = torch.Generator().manual_seed(0), {}
    for n, a, b in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128)):
        drawn[f"conv{n}.weight"] = torch.randn(b, a, 3, 3, generator=g) * (2 / (9 * a)) ** 0.5
        drawn[f"conv{n}.bias"] = 0.1 * torch.randn(b, generator=g)
    save_file(drawn, folder / "vgg.safetensors")
    left = Image.new("L", (60, 40))
    left.paste(255, (0, 0, 30, 40))
    left.save(folder / "left.png")
    return {p.stem: str(p) for p in folder.iterdir()}


def still(files: dict[str, str], **options: Any) -> Any:
    return load("styled", **({"path": files["content"], "style": files["style"], "size": 48} | options))


def model(files: dict[str, str], data: Any, **options: Any) -> StyleTransfer:
    return StyleTransfer(files["vgg"], shape=data.shape, **options)


def descended(net: StyleTransfer, data: Any, optimiser: Any, steps: int) -> list[float]:
    stream, update, losses = Stream(data, 1), Updates(net.groups(), {"picture": optimiser}), []
    for _ in range(steps):
        stream.begin()
        losses.append(float(net.step(stream, update)["loss/picture"]))
    return losses


def test_content_has_its_own_size_and_styles_theirs(files):
    data = still(files, style_size=30)
    assert data.shape == (3, 32, 48)
    assert data.styles[0].shape == (1, 3, 20, 30)
    batch = next(Stream(data, 1))
    assert batch.x.shape == (1, 3, 32, 48)
    assert batch.masks == (None,)


def test_the_loss_is_the_papers_and_targets_are_cached(files):
    data = still(files)
    net = model(files, data, content_weight=2.0, style_weight=30.0, smoothness=0.5)
    descended(net, data, Adam(lr=0.05), 2)
    batch, layers = next(Stream(data, 1)), net.style_layers
    x, s = net.picture.x.detach(), batch.styles[0]
    own, content, target = (net.vgg(v, ["relu2_1", *layers]) for v in (x, batch.x, s))
    expected = 2 * (own["relu2_1"] - content["relu2_1"]).square().mean() / 2 + 0.5 * style.total_variation(x)
    for name in layers:
        n = own[name].shape[1]
        g, a = (style.gram(m[name])[0] / (m[name].shape[2] * m[name].shape[3]) for m in (own, target))
        expected = expected + 30 / len(layers) * ((g - a) ** 2).sum() / (4 * n**2)
    terms = net.terms(x, batch.masks)
    total = 2 * terms["term/content"] + 30 * terms["term/style"] + 0.5 * terms["term/variation"]
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_the_terms(files):
    data = still(files)
    net, result = model(files, data, content_weight=2.0, style_weight=30.0, smoothness=0.5, start="noise"), []
    logs = net.step(Stream(data, 1), lambda group, loss: result.append(loss().detach()))
    content, painted, rough = (logs[f"term/{term}"] for term in ("content", "style", "variation"))
    assert min(content, painted, rough) > 0
    torch.testing.assert_close(result[0], 2 * content + 30 * painted + 0.5 * rough)
    torch.testing.assert_close(logs["loss/picture"], result[0])


def test_average_pooling_replaces_max_pooling(files):
    """Where two by two places are alike both poolings agree; elsewhere the mean is smaller than the largest."""
    data = still(files)
    largest, mean = (model(files, data, pooling=pooling).vgg for pooling in ("max", "average"))
    noise, flat = torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    maps = [[net(x, ["relu1_2", "relu2_1"]) for x in (noise, flat)] for net in (largest, mean)]
    assert torch.equal(maps[0][0]["relu1_2"], maps[1][0]["relu1_2"])
    assert not torch.allclose(maps[0][0]["relu2_1"], maps[1][0]["relu2_1"], rtol=0.1)
    torch.testing.assert_close(maps[0][1]["relu2_1"], maps[1][1]["relu2_1"])


@pytest.mark.parametrize("convention", ["gatys", "places", "all"])
def test_layers_weigh_what_is_asked_in_every_convention(files, convention):
    """Shares of 3:1 over two layers, each with the formula of the table in `limner.losses.style`."""
    data = still(files, style_size=30)
    net = model(files, data, layer_weights=[3.0, 1.0], convention=convention)
    descended(net, data, Adam(lr=0.05), 2)
    batch, x = next(Stream(data, 1)), net.picture.x.detach()
    own, target = (net.vgg(v, ["relu1_1", "relu2_1"]) for v in (x, batch.styles[0]))
    expected = 0.0
    for name, share in (("relu1_1", 0.75), ("relu2_1", 0.25)):
        n = own[name].shape[1]
        f, s = (maps[name].flatten(2)[0].double() for maps in (own, target))
        g, a = (m @ m.T / m.shape[1] for m in (f, s))  # per place, so that sizes may differ
        square = (g - a).square().sum()
        expected += share * square * {"gatys": 1 / (4 * n**2), "places": 1 / n**2, "all": 1 / n**4}[convention]
    torch.testing.assert_close(net.terms(x, batch.masks)["term/style"].double(), expected, rtol=1e-4, atol=0)


def test_weights_are_scaled_to_mean_activations_of_one(files):
    data = still(files)
    net = model(files, data)
    descended(net, data, Adam(lr=0.05), 1)
    batch = next(Stream(data, 1))
    visible = [net.vgg(v, ["relu1_1", "relu1_2", "relu2_1"]) for v in (batch.x, batch.styles[0])]
    for name in ("relu1_1", "relu1_2", "relu2_1"):
        loud = torch.stack([maps[name].mean((0, 2, 3)) for maps in visible]).mean(0)
        assert float(loud.median()) == pytest.approx(1, abs=1e-3)
        assert float(loud.max()) < 1.01


def test_at_the_style_itself_there_is_no_style_loss_and_at_the_content_no_content_loss(files):
    same = still(files, style=files["content"])
    net = model(files, same)
    (loss, *_) = descended(net, same, Adam(lr=1e-9), 1)
    assert loss < 1e-6


@pytest.mark.parametrize("optimiser", [Adam(lr=0.05), LBFGS()])
@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_loss_falls_whatever_the_start(files, optimiser, start):
    data = still(files)
    losses = descended(model(files, data, start=start), data, optimiser, 25)
    assert losses[-1] < 0.5 * losses[0]


def test_at_the_start_the_style_has_no_style_loss(files):
    data = still(files, style_size=48)
    net = model(files, data, start="style", content_weight=0.0)
    assert descended(net, data, Adam(lr=1e-9), 1)[0] < 1e-3


def test_lbfgs_never_goes_up(files):
    data = still(files)
    losses = descended(model(files, data), data, LBFGS(), 25)
    assert all(b <= a * (1 + 1e-5) for a, b in itertools.pairwise(losses))


def test_a_converged_lbfgs_still_logs_its_terms(files):
    """The photograph in its own style: there is nothing to descend, and no look is needed to know it."""
    data = still(files, style=files["content"])
    losses = descended(model(files, data), data, LBFGS(), 4)
    assert losses == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": "much"}, "strength: input should be a valid number"),
        ({"optimiser": "sgd"}, "optimiser: input should be 'lbfgs' or 'adam'"),
        ({"style_shares": [1, 2]}, "style_shares needs 1 number, "),
        ({"style_shares": [-1]}, "none negative"),
        ({"out": "x.xyz"}, "x.xyz is no name for a picture"),
        ({"content": "."}, "is a folder; name one picture"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_stylise_refuses_invalid_settings_before_it_starts(files, tmp_path, given, message):
    chosen = {"content": files["content"], "style": files["style"], "weights": files["vgg"]} | given
    with pytest.raises(LimnerError, match=message):
        stylise(chosen.pop("content"), chosen.pop("style"), chosen.pop("out", None), run=tmp_path / "r", **chosen)
    assert not (tmp_path / "r").exists()


def test_the_gradient_is_projected_on_the_range_and_lbfgs_converges(files):
    """At the border of [-1,1] a pixel has no gradient outwards: a search along one finds nothing and stops for good."""
    data = still(files)
    net = model(files, data, start="noise")
    recorded = []
    net.picture.initialise(torch.rand(1, 3, 32, 48).mul(4).sub(2).clamp(-1, 1))

    def update(group: str, loss: Any) -> None:
        value = loss()
        (gradient,) = torch.autograd.grad(value, net.picture.x, retain_graph=True)
        (whole,) = torch.autograd.grad(
            net.terms(x := net.picture.x.detach().requires_grad_(), (None,))["term/style"], x
        )
        recorded.extend((gradient, whole))

    net.content_weight, net.style_weight, net.smoothness = 0.0, 1.0, 0.0
    net.step(Stream(data, 1), update)
    gradient, whole = recorded
    x = net.picture.x.detach()
    outwards = ((x == 1) & (whole < 0)) | ((x == -1) & (whole > 0))
    assert 0.1 < float(outwards.float().mean()) < 0.9
    assert not gradient[outwards].any()
    torch.testing.assert_close(gradient[~outwards], whole[~outwards])

    losses = descended(model(files, data, style_weight=1e4), data, LBFGS(), 150)
    assert losses[-1] < losses[-10] < losses[-50]


def test_a_style_stays_where_its_mask_is(files):
    """With one mask for each half, the left half's gradient knows nothing of the right half's style."""
    data = still(files, masks=[files["left"]])
    net = model(files, data, content_weight=0.0)
    descended(net, data, Adam(lr=0.05), 1)
    x = net.picture.x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.terms(x, next(Stream(data, 1)).masks)["term/style"], x)
    assert float(gradient[..., :16].abs().sum()) > 0
    assert float(gradient[..., 40:].abs().max()) == 0


def test_styles_are_a_name_names_with_commas_or_a_list(files, tmp_path):
    both = [files["style"], files["content"]]
    for settings in (both, ",".join(both)):
        assert len(still(files, style=settings).styles) == 2
    odd = tmp_path / "a,b.png"
    Image.open(files["style"]).save(odd)
    assert len(still(files, style=str(odd)).styles) == 1


def test_several_styles_share_the_loss(files):
    both = still(files, style=[files["style"], files["content"]])
    net = model(files, both, style_shares=[3, 1], content_weight=0.0)
    descended(net, both, Adam(lr=0.05), 1)
    x = net.picture.x.detach()
    total = net.terms(x, (None, None))["term/style"]
    parts = []
    for k in (0, 1):
        contents, styles = net._targets
        net._targets = (contents, [styles[k], styles[k]])
        parts.append(net.terms(x, (None, None))["term/style"])
        net._targets = (contents, styles)
    torch.testing.assert_close(total, 0.75 * parts[0] + 0.25 * parts[1])


def test_a_white_mask_changes_nothing(files):
    """The sum of its weights is the number of positions, which a style without a mask is divided by."""
    data = still(files)
    net = model(files, data)
    descended(net, data, Adam(lr=0.05), 1)
    x, white = net.picture.x.detach(), torch.ones(1, 1, *data.shape[1:])
    masked, whole = (net.terms(x, (mask,))["term/style"] for mask in (white, None))
    torch.testing.assert_close(masked, whole, rtol=1e-4, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_have_the_loss_and_the_gradient_of_the_whole_image(files, masked):
    data = still(files, size=200, **({"masks": [files["left"]]} if masked else {}))
    result = []
    for tile in (1024, 64):
        net = model(files, data, tile=tile, content_layers=["conv1_2"])
        descended(net, data, Adam(lr=0.05), 1)
        assert len(net._tiles(net.picture.x)) == (1 if tile == 1024 else 12)
        batch = next(Stream(data, 1))
        x = (batch.x + 0.1 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
        terms = net.terms(x, batch.masks)
        (gradient,) = torch.autograd.grad(terms["term/content"] + terms["term/style"], x)
        result.append((terms, gradient))
    (whole, g), (tiled, h) = result
    for name, value in whole.items():
        torch.testing.assert_close(tiled[name], value, rtol=1e-5, atol=1e-7)
    assert float((g - h).abs().max()) < 1e-5 * float(g.abs().max())


def test_a_tile_that_is_too_small_is_refused(files):
    with pytest.raises(ValueError, match="tile=32 is too small"):
        model(files, still(files), tile=32)


def test_errors_are_one_line(files, tmp_path):
    data = still(files)
    with pytest.raises(ValueError, match="no layer 'relu5_1'"):
        model(files, data, style_layers=["relu5_1"])
    with pytest.raises(LimnerError, match="layer_weights needs 2 numbers"):
        model(files, data, layer_weights=[1.0])
    with pytest.raises(ValueError, match="3 channels"):
        StyleTransfer(files["vgg"], shape=(1, 32, 32))
    for options, match in (
        ({"style": []}, "name at least one"),
        ({"style": ["none.jpg"]}, "no picture 'none.jpg'"),
        ({"masks": [files["left"]] * 2}, "2 masks for 1 styles"),
    ):
        with pytest.raises(LimnerError, match=match):
            still(files, **options)
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    with pytest.raises(LimnerError, match="16 pixels a side are the least"):
        still(files, path=str(tmp_path / "tiny.png"))
    Image.new("RGB", (2000, 20)).save(tmp_path / "wide.png")
    with pytest.raises(
        LimnerError, match=r"wide.png would be 5×512; 16 pixels a side are the least: take size=1600 or"
    ):
        still(files, path=str(tmp_path / "wide.png"), size=512)
    assert still(files, path=str(tmp_path / "wide.png"), size=1600).shape == (3, 16, 1600)


def test_images_of_any_mode_become_colour(files, tmp_path):
    for mode in ("L", "RGBA", "CMYK"):
        position = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.open(files["content"]).convert(mode).save(position)
        assert still(files, path=str(position)).shape == (3, 32, 48)


def test_stylise_gives_a_picture_of_the_size_asked_and_can_keep_colours(files, tmp_path):
    common = {"weights": files["vgg"], "iterations": 6, "device": "cpu"}
    painted = stylise(files["content"], files["style"], tmp_path / "a.png", size=48, run=tmp_path / "r", **common)
    assert painted.size == (48, 32)
    written = Image.open(tmp_path / "a.png")
    assert written.size == (48, 32)
    output = written.getexif()[0x010E]  # which weights were used is written in every output
    weights = "VGG-19 of vgg.safetensors, whose SHA-256 begins "
    assert output.startswith(f"limner stylise: content.png in the style of style.png; {weights}")
    assert (tmp_path / "r" / "report.html").is_file()
    assert len(list((tmp_path / "r" / "samples").glob("*.webp"))) > 1
    assert "The picture that is learnt, after" in (tmp_path / "r" / "report.html").read_text()
    kept = stylise(
        files["content"], files["style"], size=48, run=tmp_path / "k", keep_colours=True, strength=10, **common
    )

    def chroma(image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).float().flatten(0, 1)
        return pixels - pixels.mean(1, keepdim=True)

    content = Image.open(files["content"]).resize((48, 32))
    free = stylise(files["content"], files["style"], size=48, run=tmp_path / "f", strength=10, **common)
    assert (chroma(kept) - chroma(content)).abs().mean() < (chroma(free) - chroma(content)).abs().mean()


def test_scales_go_from_coarse_to_fine(files, tmp_path):
    stylise(
        files["content"], files["style"], size=256, scales=2, run=tmp_path / "r", weights=files["vgg"], iterations=2,
        device="cpu",
    )  # fmt: skip
    assert limner.load(tmp_path / "r-128").picture.x.shape == (1, 3, 85, 128)
    assert limner.load(tmp_path / "r").picture.x.shape == (1, 3, 171, 256)


def test_weights_are_scaled_on_images_of_at_most_512_pixels_a_side(files, monkeypatch):
    """Made four times smaller, stripes of two pixels are grey: no pixel is left out."""
    net, recorded = StyleTransfer(files["vgg"], shape=(3, 8, 2048)), []
    stripes = torch.tensor([-1.0, 1.0, 1.0, -1.0]).repeat(512).expand(1, 3, 8, 2048)
    monkeypatch.setattr(net.vgg.net, "normalise", recorded.extend)

    class Data:
        def __next__(self) -> Styled:
            return Styled(stripes, (stripes[..., :300],), (None,))

        def randn(self, *shape: int) -> torch.Tensor:
            return torch.zeros(shape)

    net.step(Data(), lambda group, loss: loss() if callable(loss) else None)
    assert [x.shape for x in recorded] == [(1, 3, 2, 512), (1, 3, 8, 300)]
    assert float(recorded[0].abs().max()) < 0.2
    assert torch.equal(recorded[1], stripes[..., :300])


@pytest.mark.parametrize("optimiser", [Adam(lr=0.3), LBFGS()])
def test_the_image_stays_within_its_range(files, optimiser):
    """So the loss that is logged is that of the picture that is saved."""
    data = still(files)
    net = model(files, data, style_weight=1e4)
    descended(net, data, optimiser, 12)
    x = net.picture.x.detach()
    assert float(x.abs().max()) == 1.0
    assert torch.equal(net.draw(1, None, torch.Generator()), x)
