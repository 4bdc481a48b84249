"""Emoji: packages in the published layout, split by code point; the real ones where they are installed."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner.data
from limner.core.errors import LimnerError
from limner.data import load
from limner.data.files import download
from limner.data.pairs import DomainSet, PairSet
from limner.data.sources import emoji
from limner.data.sources.emoji import base_of, held_out

PEOPLE = ["1F468", "1F469", "1F9D1"]
TONES = [None, "1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"]
CODES = [
    *(f"{1 + k:05X}" for k in range(0x1F600, 0x1F628)),
    *("-".join(filter(None, (who, tone, "200D", "1F680"))) for who in PEOPLE for tone in TONES),
    *("-".join(filter(None, ("1F91D", tone))) for tone in TONES),
    *(f"1F1{code}" for code in ("E9-1F1EA", "EB-1F1F7")),
]


def svg(fill: str) -> bytes:
    """A filled disc with a black edge."""
    disc = f'<circle cx="36" cy="36" r="20" fill="{fill}" stroke="#000" stroke-width="4"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{disc}</svg>'.encode()


def png(level: int, mode: str = "RGBA") -> bytes:
    """A square of one level in the middle, transparent around it."""
    whole, stream = Image.new("RGBA", (64, 64), (0, 0, 0, 0)), io.BytesIO()
    whole.paste((level, level, level, 255), (16, 16, 48, 48))
    whole.convert(mode).save(stream, "PNG")
    return stream.getvalue()


def package(path: Path, files: dict[str, bytes]) -> None:
    """A package as the npm registry has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


@pytest.fixture
def local_data(monkeypatch, tmp_path):
    """An empty LIMNER_DATA, an empty cache and no network."""
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    for name, remote in download.REMOTES.items():
        monkeypatch.setitem(download.REMOTES, name, replace(remote, mirrors=("http://127.0.0.1:9/",)))
    return tmp_path / "own"


@pytest.fixture
def openmoji(local_data):
    """Orange discs; the first drawing has no outline."""
    pytest.importorskip("resvg_py", reason="resvg-py draws OpenMoji: pip install 'limner[emoji]'")
    entries = [
        {
            "hexcode": c,
            "group": "flags" if c.startswith("1F1") else "people",
            "subgroups": "country" if c.startswith("1F1") else "hands" if c.startswith("1F91D") else "person",
            "annotation": f"the emoji {c.removeprefix('0')}",
            # OpenMoji writes a number, an empty text, or several numbers
            "skintone": 1 if "1F3FB" in c else 3 if "1F3FD" in c else "1,3" if "1F3FF" in c else "",
        }
        for c in [*CODES, "1F999"]
    ]
    files = {"data/openmoji.json": json.dumps(entries).encode(), "README.md": b"read me"}
    files |= {f"color/svg/{c}.svg": svg("#f80") for c in [*CODES, "1F999"]}
    files |= {f"black/svg/{c}.svg": svg("none") for c in CODES}
    path = local_data / "openmoji/openmoji-17.0.0.tgz"
    package(path, files)
    return path


@pytest.fixture
def styles(local_data):
    """Both styles: the k-th picture has the level k in one and 100 + k in the other, except one it lacks."""
    listed = [c.lower() for c in CODES]
    base = [{"image": f"{c}.png", "category": "Flags" if c.startswith("1f1") else "Faces"} for c in listed]
    base[0]["skin_variations"] = {"1F3FB": {"image": "0023.png"}}
    raw = json.dumps(base).encode()
    for style, name, first in (("twitter", "twemoji", 0), ("google", "noto-emoji", 100)):
        files = {f"img/{style}/64/{c}.png": png(first + k) for k, c in enumerate([*listed, "0023"])}
        files |= {f"img/{style}/sheets/64.png": png(7), "emoji.json": raw}
        if style == "google":
            del files["img/google/64/1f1eb-1f1f7.png"]
        package(local_data / name / f"emoji-datasource-{style}-16.0.0.tgz", files)


def test_variants_have_one_base():
    assert {base_of(c) for c in CODES if c.endswith("1F680")} == {"1F9D1-1F680"}
    assert base_of("1F6B6-1F3FD-200D-2640-FE0F-200D-27A1-FE0F") == base_of("1F6B6")
    assert base_of("1F468-1F3FB-200D-1F9B0") == base_of("1F9D1") == base_of("1F469-200D-1F9B3")
    assert base_of("1FAF1-1F3FB-200D-1FAF2-1F3FF") == base_of("1F91D-1F3FC") == base_of("1F91D")
    hearts = "1F469-1F3FB-200D-2764-FE0F-200D-1F468-1F3FC"
    assert base_of(hearts) == base_of("1F491") != base_of("1F48F")
    assert base_of("1f46e-1f3fb-200d-2642-fe0f") == "1F46E", "file names are in small letters"
    assert base_of("1F3FB") == base_of("1F3FF")
    assert base_of("1F1EB-1F1F7") != base_of("1F1E9-1F1EA")


def test_a_tenth_of_the_bases_is_held_out():
    share = np.mean([held_out(f"{c:X}") for c in range(0x1F400, 0x1F400 + 5000)])
    assert share == pytest.approx(0.1, abs=0.013)


def test_outlines_and_colours(openmoji):
    train, test, whole = (load("openmoji", split=s) for s in ("train", "test", "all"))
    assert isinstance(train, PairSet)
    assert len(whole) == len(train) + len(test) == len(CODES), "what lacks a drawing is no pair"
    assert (train.source, train.shape) == ((1, 64, 64), (3, 64, 64))
    assert len(test) == sum(map(held_out, CODES)) > 0
    a, b = whole.pairs([0])
    assert a[0, 0, 32, 32] == 1, "an outline is white inside"
    assert b[0, :, 32, 32].tolist() == pytest.approx([1, 0x88 / 127.5 - 1, -1])
    assert a[0, 0, 0, 0] == b[0].amax((1, 2)).max() == 1, "on white"
    assert a.min() == b.min() == -1
    assert any("CC BY-SA 4.0" in note for note in train.notes)
    drawn = (openmoji.parents[1].parent / "cache/openmoji").iterdir()
    assert [p.name[:5] for p in drawn] == ["64px-"]


def test_annotations_are_attributes_and_captions(openmoji):
    plain = load("openmoji", part="colour", split="all")
    told = load("openmoji", part="colour", labels="annotations", split="all")
    assert plain.texts is None
    assert torch.equal(told.pixels, plain.pixels)
    values = told.condition.values
    assert list(values) == ["group", "subgroup", "skin_tone"]
    assert values["skin_tone"] == ["none", "light", "medium", "several"], "those that occur, from light to dark"
    rows = told.condition.features(told.labels).tolist()
    names = {code: [v[k] for v, k in zip(values.values(), row)] for code, row in zip(CODES, rows, strict=True)}
    assert names["1F468-1F3FB-200D-1F680"] == ["people", "person", "light"]
    assert names["1F91D-1F3FD"] == ["people", "hands", "medium"]
    assert names["1F91D-1F3FF"] == ["people", "hands", "several"]
    assert names["1F1E9-1F1EA"] == ["flags", "country", "none"]
    assert told.texts[0] == ["the emoji 1F601"]
    with pytest.raises(LimnerError, match="write part=colour too"):
        load("openmoji", labels="annotations")
    light = load("openmoji", part="colour", labels="annotations", only=["skin_tone=light"], split="all")
    assert len(light) == sum("1F3FB" in code for code in CODES)


def test_rendered_once_at_each_size(openmoji, monkeypatch):
    first = load("openmoji", size=32)
    monkeypatch.setattr(emoji, "_render", lambda *_: pytest.fail("rendered again"))
    again = load("openmoji", size=32)
    assert again.fingerprint == first.fingerprint
    assert again.shape == (3, 32, 32)
    monkeypatch.undo()
    assert load("openmoji", size=[24, 32]).shape == (3, 24, 32)


def test_a_damaged_or_unwritable_cache_does_no_harm(openmoji):
    first = load("openmoji", size=16)
    cache = openmoji.parents[1].parent / "cache/openmoji"
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert load("openmoji", size=16).fingerprint == first.fingerprint
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert load("openmoji", size=16).fingerprint == first.fingerprint


def test_other_parts_of_openmoji(openmoji):
    colour = load("openmoji", part="colour", split="all")
    assert colour.shape == (3, 64, 64)
    assert colour.classes == ["people", "flags"]
    assert colour.labels.bincount().tolist() == [len(CODES) - 2, 2]
    assert not isinstance(colour, PairSet)
    assert len(load("openmoji", only=["flags"], split="all")) == 2
    task = load("openmoji", task="colourise", size=16)
    assert task.pairing["name"] == "colourise"
    assert task.source == (1, 16, 16)
    assert load("openmoji", source_channels=3, size=16).source == (3, 16, 16)
    assert load("pairs", path="openmoji", task="deblur", size=16).pairing["name"] == "deblur"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 512}, "choose a size of at most 256"),
        ({"amount": 2}, "amount belongs to a task"),
        ({"part": "black"}, "choose from: pairs, colour"),
        ({"binarise": "static"}, "pairs are not binarised"),
    ],
)
def test_bad_options(openmoji, options, message):
    with pytest.raises(LimnerError, match=message):
        load("openmoji", **options)


def test_openmoji_without_its_renderer(openmoji, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(LimnerError, match=r"pip install 'limner\[emoji\]'"):
        load("openmoji")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no list of its emoji"),
        ({"data/openmoji.json": b"[1]"}, "has no list of its emoji"),
        ({"data/openmoji.json": b"[]"}, "has no drawings"),
        (
            {
                "data/openmoji.json": b'[{"hexcode": "1F600", "group": "x"}]',
                "color/svg/1F600.svg": b"<svg",
                "black/svg/1F600.svg": b"<svg",
            },
            "1F600.svg cannot be drawn",
        ),
    ],
)
def test_damaged_packages_are_one_clear_line(openmoji, files, message):
    package(openmoji, files)
    with pytest.raises(LimnerError, match=message):
        load("openmoji")
    openmoji.write_bytes(b"no tar")
    with pytest.raises(LimnerError, match="is damaged"):
        load("openmoji")


def test_two_styles_without_pairs_in_training(styles):
    train, test, whole = (load("emoji", split=s) for s in ("train", "test", "all"))
    assert isinstance(train, DomainSet)
    assert (train.name, train.shape) == ("emoji", (3, 64, 64))
    assert [x.known for x in (train, test, whole)] == [False, True, True]
    assert len(whole) == len(CODES), "one is missing on one side, one is a variant"
    level = [[int(v) for v in x.pixels[:, 0, 32, 32]] for x in (train.a, train.b, test.a, test.b)]
    assert [v + 100 for v in level[2]] == level[3], "the i-th images of both are the same emoji"
    assert sorted(v + 100 for v in level[0]) == sorted(level[1])
    same = sum(a + 100 == b for a, b in zip(*level[:2]))
    assert same < 8, "the orders are independent"
    assert train.a.pixels[0, :, 0, 0].tolist() == [255, 255, 255], "over white"
    assert not {base_of(CODES[v]) for v in level[0] if v < len(CODES)} & {base_of(CODES[v]) for v in level[2]}
    assert load("emoji", only=["Flags"], split="all").a.classes == ["Flags"]
    description = limner.data.get("emoji")
    assert (description["gives"], description["images"], description["held_out"]) == ("domains", len(CODES), len(test))


def test_styles_are_decoded_once(styles, monkeypatch):
    first = load("emoji")
    monkeypatch.setattr(emoji, "_decode", lambda *_: pytest.fail("decoded again"))
    assert load("emoji").fingerprint == first.fingerprint


def test_a_damaged_picture_of_a_style(styles, local_data):
    entries = json.dumps([{"image": "1f600.png", "category": "Faces"}]).encode()
    for style, name in (("twitter", "twemoji"), ("google", "noto-emoji")):
        files = {"emoji.json": entries, f"img/{style}/64/1f600.png": b"no picture"}
        package(local_data / name / f"emoji-datasource-{style}-16.0.0.tgz", files)
    with pytest.raises(LimnerError, match=r"twitter's 1f600\.png is unusable"):
        load("emoji")


def test_without_a_network_the_message_says_what_to_do(local_data):
    for name, file in (("openmoji", "openmoji-17.0.0.tgz"), ("emoji", "emoji-datasource-twitter-16.0.0.tgz")):
        if name == "openmoji":
            pytest.importorskip("resvg_py")
        with pytest.raises(LimnerError, match=file):
            load(name)


# --- the real ones ---------------------------------------------------------------------------------


@pytest.fixture
def real():
    """Loads a set from where this machine has it, or fetches it where that is little; else skips."""

    def find(name: str, *remotes: str, fetch: bool = False):
        for remote in (download.REMOTES[r] for r in remotes):
            file = next(iter(remote.sha256))
            cached = download.cache_folder(remote.name) / file
            if not fetch and download.local(remote, file) is None and not cached.is_file():
                pytest.skip(f"{file} is not at hand; fetch it with: limner data get {name}")
        try:
            return {split: load(name, split=split) for split in ("train", "test")}
        except LimnerError as error:
            pytest.skip(str(error))

    return find


def test_the_real_openmoji(real):
    pytest.importorskip("resvg_py", reason="resvg-py draws OpenMoji: pip install 'limner[emoji]'")
    sets = real("openmoji", "openmoji", fetch=True)
    assert {split: len(x) for split, x in sets.items()} == {"train": 4127, "test": 368}
    a, b = sets["test"].pairs(range(0, 368, 8))
    assert a.mean() > 0.6, "outlines are thin"
    black = (a < -0.5)[:, 0]
    assert (b.amax(1)[black] < 0).float().mean() > 0.9, "where the outline is black, so is the picture"
    training = {x.numpy().tobytes() for x in sets["train"].fetch(range(4127))}
    copies = sum(x.numpy().tobytes() in training for x in sets["test"].fetch(range(368)))
    assert copies <= 2, "flags of islands that are those of their countries"


def test_the_real_styles(real):
    sets = real("emoji", "twemoji", "noto-emoji")
    assert {split: len(x) for split, x in sets.items()} == {"train": 3469, "test": 317}
    a, b = (side.pixels.float() for side in (sets["test"].a, sets["test"].b))
    pairs, others = (a - b).abs().mean(), (a - b.roll(100, 0)).abs().mean()
    assert pairs < 0.8 * others, "pairs look more alike than any two"
    assert not torch.equal(a, b)
