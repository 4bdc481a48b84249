"""The model decides whether `data=PATH` is read as images, pairs or two domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import limner
from limner import api
from limner.config import recipe
from limner.core.errors import LimnerError

PAIRED = {
    "name": "some-pairs",
    "model": {
        "name": "pix2pix",
        "G": {"name": "unet.Generator", "width": 4},
        "D": {"name": "patchgan.PairDiscriminator", "width": 4, "patch": 16},
    },
    "data": {"name": "pairs", "path": "digits", "task": "upscale", "size": 32, "flip": True},
    "optim": {"G": {"lr": 1e-3}, "D": {"lr": 1e-3}},
    "train": {"images": 100, "batch": 4},
}
UNPAIRED = {
    "name": "two-domains",
    "model": {
        "name": "cyclegan",
        "G": {"name": "resnet.Generator"},
        "F": {"name": "resnet.Generator"},
        "D_X": {"name": "patchgan.Discriminator"},
        "D_Y": {"name": "patchgan.Discriminator"},
    },
    "data": {"name": "domains", "a": "digits", "b": "digits", "size": 32},
    "optim": {"G": {"lr": 1e-3}, "D": {"lr": 1e-3}},
    "train": {"images": 100, "batch": 4},
}
ALONE = {
    "name": "alone",
    "model": {"name": "vae", "z": 4, "encoder": {"name": "mlp.Encoder"}, "decoder": {"name": "mlp.Decoder"}},
    "data": {"name": "digits", "size": 16},
    "optim": {"VAE": {"lr": 1e-3}},
    "train": {"images": 100, "batch": 4},
}


def data(tree: dict, **overrides: object) -> dict:
    """The data section of the loaded recipe."""
    return recipe.load(tree, overrides).data.to_dict()


@pytest.mark.parametrize("text", ["photos/", "some/photos.zip", "./x"])
def test_a_path_is_read_as_the_batch_type_of_the_model(text):
    pairs = data(PAIRED, data=text)
    assert pairs == {"name": "pairs", "path": text, "task": "upscale", "size": 32, "flip": True}
    assert data(UNPAIRED, data=text) == {"name": "domains", "path": text, "size": 32}
    assert data(ALONE, data=text) == {"name": "folder", "path": text, "size": 16}


def test_a_path_in_the_recipe_itself():
    tree = PAIRED | {"data": {"name": "photos/", "task": "deblur"}}
    assert data(tree) == {"name": "pairs", "path": "photos/", "task": "deblur"}
    assert data(PAIRED | {"data": "photos/"}) == {"name": "pairs", "path": "photos/"}
    assert data(UNPAIRED | {"data": "photos/"}, size=64) == {"name": "domains", "path": "photos/", "size": 64}
    folder = PAIRED | {"data": {"name": "folder", "path": "photos/"}}
    assert data(folder, task="edges") == {"name": "pairs", "path": "photos/", "task": "edges"}


def test_a_named_set_of_the_right_batch_type_is_used_directly():
    assert data(PAIRED, data="facades128") == {"name": "facades128", "size": 32, "flip": True}
    assert data(UNPAIRED, data="horse2zebra") == {"name": "horse2zebra", "size": 32}
    assert data(ALONE, data="mnist-5k") == {"name": "mnist-5k", "size": 16}
    assert data(PAIRED, data="openmoji") == {"name": "openmoji", "task": "upscale", "size": 32, "flip": True}
    assert data(ALONE, data="openmoji") == {"name": "openmoji", "part": "colour", "size": 16}


def test_a_named_set_of_images_keeps_the_task():
    section = data(PAIRED, data="mnist-5k")
    assert section == {"name": "pairs", "path": "mnist-5k", "task": "upscale", "size": 32, "flip": True}
    without = recipe.load(PAIRED | {"data": "facades128"}, {"data": "digits"})
    assert without.data.to_dict() == {"name": "pairs", "path": "digits"}
    with pytest.raises(LimnerError, match="write task=colourise"):
        without.data.build()
    alone = recipe.load(UNPAIRED, {"data": "digits"})
    with pytest.raises(LimnerError, match="digits is one domain"):
        alone.data.build()


def test_a_bare_key_finds_the_data_of_a_path():
    tree = PAIRED | {"data": "photos/"}
    assert data(tree, task="denoise", amount=0.2)["amount"] == 0.2
    assert data(tree, swap=True)["swap"] is True


def test_a_mapping_replaces_everything():
    assert data(PAIRED, data={"name": "photos/", "swap": True}) == {"name": "pairs", "path": "photos/", "swap": True}


def test_a_written_recipe_reads_back():
    for tree in (PAIRED, UNPAIRED, ALONE):
        once = recipe.load(tree, {"data": "photos/"})
        assert recipe.load(once.to_dict()) == once


def test_errors_of_the_model_section_are_unchanged():
    with pytest.raises(LimnerError, match="'name' is missing"):
        recipe.load(ALONE | {"model": {"z": 3}}, {"data": "photos/"})
    with pytest.raises(LimnerError, match="unknown model 'vea'"):
        recipe.load(ALONE | {"model": "vea"}, {"data": "photos/"})
    with pytest.raises(LimnerError, match="unknown data 'mnist-6k'"):
        recipe.load(PAIRED, {"data": "mnist-6k"})


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """A folder with grey sources and coloured targets."""
    rng = np.random.default_rng(0)
    for k in range(12):
        for side, channels in (("A", 1), ("B", 3)):
            (tmp_path / side).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (32, 32, channels), dtype=np.uint8)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / side / f"{k}.png")
    return f"{tmp_path}/"


@pytest.mark.parametrize(
    ("tree", "section", "message"),
    [
        (
            ALONE,
            {"name": "pairs", "path": "digits", "task": "upscale"},
            "vae does not learn from digits, which has pairs",
        ),
        (ALONE, {"name": "domains", "a": "digits", "b": "digits"}, "which has two domains; give it images alone"),
        (PAIRED, {"name": "domains", "a": "digits", "b": "digits"}, "which has two domains; give it pairs"),
        (UNPAIRED, {"name": "pairs", "path": "digits", "task": "upscale"}, "which has pairs; give it two domains"),
    ],
)
def test_data_that_do_not_fit_the_model_are_one_clear_line(tree, section, message):
    with pytest.raises(LimnerError) as caught:
        api.prepare(recipe.load(tree, {"data": section}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_reach_the_model_with_their_own_channels(pairs):
    model = limner.api.prepare(recipe.load(PAIRED | {"data": pairs})).model
    assert (model.source, model.shape, model.pairing) == ((1, 32, 32), (3, 32, 32), None)
    model = limner.api.prepare(recipe.load(PAIRED)).model
    assert model.pairing == {"name": "upscale", "amount": 2.0}


def test_two_folders_stand_for_two_domains_whatever_the_recipe_has():
    tree = UNPAIRED | {"data": {"name": "emoji", "size": 32, "flip": True}}
    section = recipe.load(tree, {"a": "digits", "b": "mnist-5k"}).data.to_dict()
    assert section == {"name": "domains", "size": 32, "flip": True, "a": "digits", "b": "mnist-5k"}


def test_other_data_are_taken_whole() -> None:
    assert recipe.load("ada-64").data.kwargs["limit"] == 1000
    assert "limit" not in recipe.load("ada-64", {"data": "digits"}).data.kwargs
    assert recipe.load("ada-64", {"data": "digits", "limit": 500}).data.kwargs["limit"] == 500
