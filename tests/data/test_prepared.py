"""Prepared stores: the same set as the folder that they were made from, and refused where they are damaged."""

from __future__ import annotations

import json
import shutil
import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from limner.cli import main
from limner.core.errors import LimnerError
from limner.core.stream import Stream
from limner.data import Files, Pixels, load, prepare, preparing


def numbered(n: int, prefix: str) -> list[str]:
    return [f"{prefix}{i:03}.png" for i in range(n)]


@pytest.fixture
def photos(folder_of, paint):
    """Pictures of two classes and several sizes and modes, with two that cannot be read."""
    root = folder_of(*numbered(14, "ant/"), *numbered(9, "cat/"), size=(20, 30))
    paint(50, (40, 24), "L").save(root / "ant/100.png")
    paint(51, (40, 24), "RGBA").save(root / "cat/100.png")
    (root / "ant/empty.png").write_bytes(b"")
    raw = bytearray((root / "cat/003.png").read_bytes())
    raw[60:-20] = bytes(len(raw) - 80)
    (root / "cat/003.png").write_bytes(raw)  # its header is whole
    return root


def assert_same(ours, theirs) -> None:
    assert (len(ours), ours.shape, ours.classes, ours.paths) == (
        len(theirs),
        theirs.shape,
        theirs.classes,
        theirs.paths,
    )
    everything = range(len(theirs))
    assert torch.equal(ours.fetch(everything), theirs.fetch(everything))
    assert torch.equal(ours.labels, theirs.labels)
    assert ours.quarantine == theirs.quarantine
    assert ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"split": "test"}, {"split": "all", "limit": 7}, {"only": ["cat"], "flip": True}, {"binarise": "static"}],
)
def test_a_store_gives_what_the_folder_gives(tmp_path, photos, cache, options):
    result = prepare(photos, tmp_path / "x.limner", size=16)
    assert dict(result["left_out"]).keys() == {"ant/empty.png", "cat/003.png"}
    ours = load(tmp_path / "x.limner", cache=cache, **options)
    theirs = load(photos, size=16, cache=cache, **options)
    assert isinstance(ours, Pixels if cache else Files)
    assert_same(ours, theirs)
    a, b = (Stream(d, min(4, len(ours)), seed=2) for d in (ours, theirs))
    for _ in range(8):
        assert torch.equal(next(a).x, next(b).x)


def test_the_size_and_channels_that_the_pictures_decide(tmp_path, photos):
    prepare(photos, tmp_path / "x.limner")
    assert_same(load(tmp_path / "x.limner", cache=False), load(photos, cache=False))
    prepare(photos, tmp_path / "y.limner", size=(8, 12), channels=1)
    assert_same(
        load(tmp_path / "y.limner", size=[8, 12], cache=False), load(photos, size=[8, 12], channels=1, cache=False)
    )
    with pytest.raises(LimnerError, match="holds images of 8x12 with 1 channels; leave size and channels out"):
        load(tmp_path / "y.limner", size=16)


def test_a_store_is_mapped_and_can_be_sent_to_workers(tmp_path, photos):
    prepare(photos, tmp_path / "x.limner", size=16)
    store = load(tmp_path / "x.limner", cache=False)
    assert store.pixels is None
    assert not store.mapped.pixels.flags.owndata
    assert not store.mapped.pixels.flags.writeable
    assert len(ForkingPickler.loads(ForkingPickler.dumps(store)).fetch([0])) == 1
    assert len(store.mapped.__getstate__()) == 1, "not the pixels"


def test_an_interrupted_preparation_goes_on(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(preparing, "_EVERY", 4)
    decoded = []

    def stop_after(limit):
        def in_threads(read, rows):
            for row in rows:
                if len(decoded) == limit:
                    raise KeyboardInterrupt
                decoded.append(row)
                yield read(row)

        return in_threads

    monkeypatch.setattr(preparing, "in_threads", stop_after(10))
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, tmp_path / "x.limner", size=16)
    assert not (tmp_path / "x.limner").exists()
    decoded.clear()
    monkeypatch.setattr(preparing, "in_threads", stop_after(100))
    prepare(photos, tmp_path / "x.limner", size=16)
    assert decoded[0] == 8, "eight were on the disk"
    assert_same(load(tmp_path / "x.limner", cache=False), load(photos, size=16, cache=False))
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_a_preparation_starts_again_when_a_file_has_changed(tmp_path, photos, paint, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "sync_folder", lambda path: 1 / 0)  # after the last image
        with pytest.raises(ZeroDivisionError):
            prepare(photos, tmp_path / "x.limner", size=16)
    paint(77, (20, 30)).save(photos / "ant/000.png")
    prepare(photos, tmp_path / "x.limner", size=16)
    assert_same(load(tmp_path / "x.limner", cache=False), load(photos, size=16, cache=False))


def test_what_cannot_be_prepared(tmp_path, photos, monkeypatch):
    with pytest.raises(LimnerError, match=r"the name of a prepared store ends in \.limner; write x\.limner"):
        prepare(photos, tmp_path / "x")
    prepare(photos, tmp_path / "x.limner", size=16)
    with pytest.raises(LimnerError, match="exists already"):
        prepare(photos, tmp_path / "x.limner", size=16)
    with pytest.raises(LimnerError, match="is prepared already"):
        prepare(tmp_path / "x.limner", tmp_path / "y.limner")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(LimnerError, match="MiB are needed and 1 MiB are free"):
        prepare(photos, tmp_path / "y.limner", size=16)


def mangled(header: dict, **changes) -> bytes:
    return json.dumps(header | changes).encode()


def test_damaged_stores_are_refused_in_one_line(tmp_path, photos):
    prepare(photos, tmp_path / "x.limner", size=16)
    store = tmp_path / "x.limner"
    raw = (store / "header.json").read_bytes()
    header = json.loads(raw)
    for content in (
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 100_000,
        mangled(header, version=2),
        mangled(header, names=7),
        mangled(header, names=["a"]),
        mangled(header, shape=[3, 1 << 40, 16]),
        mangled(header, shape="abc"),
        mangled(header, classes=[1, 2]),
        mangled(header, bad={"1000": "x"}),
        mangled(header, extra=1),
        mangled(header, size={}),
    ):
        (store / "header.json").write_bytes(content)
        with pytest.raises(LimnerError, match=r"x\.limner (is damaged|was prepared by)"):
            load(store)
    (store / "header.json").write_bytes(raw)
    for file in ("pixels.npy", "labels.npy", "checksums.npy", "splits.npy"):
        whole = (store / file).read_bytes()
        pickle = (
            b"\x93NUMPY\x01\x00"
            + bytes([70, 0])
            + b"{'descr': '|O', 'fortran_order': False, 'shape': (25,), }".ljust(70)
        )
        for content in (b"", whole[:-1], whole + b"x", whole[: len(whole) // 2], pickle + whole, b"x" * len(whole)):
            (store / file).write_bytes(content)
            with pytest.raises(LimnerError, match=r"x\.limner (is damaged|: )") as caught:
                load(store)
            assert "\n" not in str(caught.value)
        (store / file).unlink()
        if file != "pixels.npy":
            with pytest.raises(LimnerError, match="cannot be read"):
                load(store)
        (store / file).write_bytes(whole)
    labels = np.load(store / "labels.npy")
    np.save(store / "labels.npy", labels + 5)
    with pytest.raises(LimnerError, match="a label is not that of a class"):
        load(store)


def test_pairs_are_not_prepared(tmp_path, photos):
    prepare(photos, tmp_path / "x.limner", size=16)
    with pytest.raises(LimnerError, match=r"x\.limner is a prepared store of images"):
        load("pairs", path=str(tmp_path / "x.limner"))
    assert load("pairs", path=str(tmp_path / "x.limner"), task="colourise").shape == (3, 16, 16)


def test_from_the_command_line_and_resumed_on_the_store(tmp_path, photos, monkeypatch, capsys):
    def limner(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err

    limner("data", "prepare", photos, tmp_path / "x.limner", "size=16")
    said = capsys.readouterr().out
    assert "left out ant/empty.png: empty file" in said
    assert "images of 3×16×16 to" in said
    tiny = ["batch=4", "samples=4", "device=cpu", "threads=1", f"out={tmp_path / 'run'}"]
    limner("train", "ae-mnist", f"data={photos}", "size=16", "images=8", *tiny)
    limner("resume", tmp_path / "run", f"data={tmp_path / 'x.limner'}", "images=16")
    assert capsys.readouterr().out.strip().endswith("run")


def test_advice_reads_a_store(tmp_path, photos):
    from limner.config.advice import survey

    prepare(photos, tmp_path / "x.limner", size=16)
    facts = survey(tmp_path / "x.limner", {})
    assert (facts.kind, facts.shape, facts.classes) == ("images", (3, 16, 16), 2)
