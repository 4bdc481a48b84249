"""Degradations, which make pairs of any images."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from limner.core.errors import LimnerError
from limner.core.rng import keys
from limner.data import degradations, load
from limner.data.pairs import PairSet


def photographs(h: int = 64, w: int = 96) -> torch.Tensor:
    both = [torch.from_numpy(load_sample_image(n).copy()).permute(2, 0, 1) for n in ("china.jpg", "flower.jpg")]
    x = torch.stack(both).float() / 127.5 - 1
    return torch.nn.functional.interpolate(x, (h, w), mode="bicubic", antialias=True).clamp(-1, 1)


def some_keys(n: int) -> torch.Tensor:
    ids = torch.arange(n)
    return keys(0, torch.zeros_like(ids), ids)


@pytest.mark.parametrize("name", degradations.NAMES)
def test_a_source_has_the_size_of_its_target_and_is_a_function_of_its_key(name):
    x, k, degradation = photographs(), some_keys(2), degradations.make(name)
    a = degradation(x, k)
    assert a.shape == (2, *degradation.source((3, 64, 96)))
    assert float(a.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(degradation(x[1:], k[1:]), a[1:])  # independent of the batch
    assert degradations.make(**degradation.to_dict()).to_dict() == degradation.to_dict()
    assert float((degradation.finish(a, x) - x).abs().max()) < 1e-4  # a perfect translation is left as it is


@pytest.mark.parametrize("name", [n for n in degradations.NAMES if n != "colourise"])
def test_grey_images_have_sources_too(name):
    x = photographs()[:, :1]
    assert degradations.make(name)(x, some_keys(2)).shape == (2, *degradations.make(name).source((1, 64, 96)))


def test_colourise_gives_luminance_and_keeps_it():
    x = photographs()
    degradation = degradations.make("colourise")
    a = degradation(x, some_keys(2))
    invented = degradation.finish(a, x.flip(0))  # colours of another picture
    assert float((degradation(invented, some_keys(2)) - a).abs().max()) < 0.002  # a tenth of a unit of L, of 100
    wild = torch.rand(a.shape[0], 3, *a.shape[2:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    written = (degradation.finish(a, wild) * 127.5 + 127.5).round() / 127.5 - 1  # as files have it, in 8 bits
    assert float((degradation(written, some_keys(2)) - a).abs().max()) < 0.01  # half a unit of L
    grey = degradation.classic(a)
    assert float((grey[:, 0] - grey[:, 1]).abs().max()) < 1e-3
    with pytest.raises(LimnerError, match="colour pictures"):
        degradation.source((1, 8, 8))


def test_luminance_is_that_of_an_independent_implementation():
    """CIE 1976 by hand from the sRGB standard, for single colours."""
    colours = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.2, 0.6, 0.4]]).view(4, 3, 1, 1)
    luminance = (degradations.make("colourise").prepare(colours * 2 - 1).flatten() + 1) * 50
    for (r, g, b), value in zip(colours.flatten(1).tolist(), luminance.tolist(), strict=True):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
        y = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        expected = 116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3
        assert abs(value - expected) < 0.05


def test_upscale_loses_what_is_finer_than_its_factor():
    x = torch.ones(1, 3, 32, 32)
    x[..., ::2] = -1  # stripes of one pixel
    a = degradations.make("upscale", 2)(x, some_keys(1))
    assert float(a[..., 4:-4].abs().max()) < 0.2
    small = photographs(32, 48)
    assert degradations.make("upscale", 4).prepare(small).shape == (2, 3, 128, 192)
    for amount in (1, 2.5, -3):
        with pytest.raises(LimnerError, match=r"whole factor|upscale"):
            degradations.make("upscale", amount)


def test_holes_have_about_their_share_and_hide_what_is_below():
    degradation = degradations.make("inpaint", 0.3)
    holes = degradation.holes(some_keys(400), (64, 64))
    assert 0.2 < float(holes.mean()) < 0.4
    assert holes.unique().tolist() == [0, 1]
    x, k = photographs(), some_keys(2)
    a = degradation(x, k)
    hole = a[:, -1:] > 0
    assert bool((a[:, :-1][hole.expand(-1, 3, -1, -1)] == 0).all())
    torch.testing.assert_close(a[:, :-1][~hole.expand(-1, 3, -1, -1)], x[~hole.expand(-1, 3, -1, -1)])
    finished = degradation.finish(a, torch.zeros_like(x))
    torch.testing.assert_close(finished[~hole.expand(-1, 3, -1, -1)], x[~hole.expand(-1, 3, -1, -1)])
    with pytest.raises(LimnerError, match="--mask"):
        degradation.prepare(x)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="the extra 'classic' is not installed")
def test_teleas_inpainting_is_better_than_grey():
    x, k, degradation = photographs(), some_keys(2), degradations.make("inpaint")
    a = degradation(x, k)
    filled = degradation.classic(a)
    assert float((filled - x).abs().mean()) < 0.5 * float((a[:, :-1] - x).abs().mean())


def test_noise_has_its_sigma_and_is_normal():
    x = torch.zeros(64, 1, 16, 16)
    noise = (degradations.make("denoise", 0.1)(x, some_keys(64))).flatten()
    assert abs(float(noise.std()) - 0.2) < 0.005  # 0.1 of [0,1] is 0.2 of [-1,1]
    assert abs(float(noise.mean())) < 0.005
    within = float((noise.abs() < 0.2).float().mean())
    assert abs(within - math.erf(1 / math.sqrt(2))) < 0.01


def test_a_median_filter_denoises_and_an_unsharp_mask_sharpens():
    x, k = photographs(), some_keys(2)
    for name in ("denoise", "deblur"):
        degradation = degradations.make(name)
        a = degradation(x, k)
        assert float((degradation.classic(a) - x).square().mean()) < float((a - x).square().mean())


def test_edges_are_lines_on_white():
    x = -torch.ones(1, 3, 32, 32)
    x[..., 16:] = 1  # one edge
    a = degradations.make("edges")(x, some_keys(1))[0, 0]
    assert bool((a[:, :10] == 1).all())
    assert bool((a[:, 24:] == 1).all())
    assert float(a[:, 14:17].min()) < 0


def test_labels_are_a_number_of_flat_colours_near_the_image():
    x = photographs()
    a = degradations.make("labels", 5)(x, some_keys(2))
    for image in a:
        assert len(np.unique((image.flatten(1).T * 1e4).round().numpy(), axis=0)) <= 5
    fewer, more = (float((degradations.make("labels", n)(x, some_keys(2)) - x).square().mean()) for n in (2, 16))
    assert more < fewer
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(degradations.make("labels", 4)(flat, some_keys(1)), flat)


def test_impossible_degradations_are_one_clear_line():
    for name, amount, match in (
        ("colorize", None, "colourise"),
        ("colourise", 2, "no amount"),
        ("inpaint", 1.5, "share"),
        ("denoise", 0, "sigma"),
        ("labels", 100, "number of colours"),
    ):
        with pytest.raises(LimnerError, match=match):
            degradations.make(name, amount)


def test_held_out_pairs_are_the_same_each_time():
    pairs = PairSet(load("digits", split="test"), degradations.make("denoise"))
    one, again = pairs.pairs([3, 5]), pairs.pairs([3, 5])
    assert torch.equal(one.a, again.a)
    assert torch.equal(pairs.pairs([5]).a, one.a[1:])
