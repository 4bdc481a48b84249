"""Images that lie many in one file: WebDataset tars, Parquet files, and the Arrow files of Hugging Face datasets.

Each such file, a shard, is listed once: where each image starts and how long it is, and its label. The listing is kept
in limner's cache while the shard does not change. From then on an image is read by its place, in any order, without
the library that wrote it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import zlib
from bisect import bisect_left
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from limner.core.errors import LimnerError
from limner.data.files.decode import MAX_BYTES, SUFFIXES, BadImage
from limner.data.files.download import cache_folder, replacing
from limner.data.files.index import prune, reader
from limner.data.files.natural import natural_order
from limner.data.files.reading import LATEST
from limner.data.files.shard import Shard
from limner.data.files.splits import TRAIN, WORDS, Splits
from limner.data.steps import listed

if TYPE_CHECKING:
    from limner.data.files.layout import Layout

FORMATS = {
    ".tar": "limner.data.files.tars",
    ".parquet": "limner.data.files.parquet",
    ".arrow": "limner.data.files.arrow",
}
"""The suffix of a shard -> the module whose function `read(path, unpacked)` lists it."""

_LOOKED_AT = 5000
_DEPTH = 3


def find(root: Path) -> list[Path]:
    """The shards at a path, sorted; none where pictures lie there too, or neither."""
    if root.is_file():
        return [root] if root.suffix.lower() in FORMATS else []
    found: list[Path] = []
    looked = 0
    level = [root]
    for _ in range(_DEPTH):
        folders: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        looked += 1
                        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path for each would be slow
                        if entry.name.startswith(".") or (looked > _LOOKED_AT and not found):
                            continue
                        if entry.is_dir():
                            folders.append(Path(entry.path))
                        elif suffix in SUFFIXES:
                            return []
                        elif suffix in FORMATS and entry.is_file():
                            found.append(Path(entry.path))
            except OSError:
                continue
        level = folders
    # `datasets` writes its own caches beside the rows
    return sorted(p for p in found if not p.name.startswith("cache-"))


class Shards:
    """Images of shards. Satisfies `limner.data.files.store.Store`; a layout of its own gives splits and classes.

    Args:
        root: the folder that has the shards, or the only shard.
        paths: the shards.
    """

    def __init__(self, root: Path, paths: list[Path]) -> None:
        self.looked = time.time_ns()
        self.root, self.key, self.title = root, str(root.resolve()), root.stem
        self.reading: int = LATEST
        self.quarantine: list[tuple[str, str]] = []
        self.ignored: Counter[str] = Counter()
        self.hidden: set[str] = set()
        self.tables: list[str] = []
        self.examples: dict[str, list[str]] = {}
        shards, status, prefixes = [], [], []
        for path in paths:
            shards.append(_listed(path))
            status.append(path.stat())
            prefixes.append(path.relative_to(root).as_posix() if path != root else path.name)
            self.ignored.update(shards[-1].ignored)
            self.quarantine += [(f"{prefixes[-1]}/{name}", reason) for name, reason in shards[-1].quarantine]
        counts = [len(s.names) for s in shards]
        names = [f"{prefix}/{name}" for shard, prefix in zip(shards, prefixes) for name in shard.names]
        order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        self.names = [names[i] for i in order]
        self.paths = [s.path for s in shards]
        self.shard = np.repeat(np.arange(len(shards)), counts)[order]
        self.extents = np.concatenate([s.extents for s in shards])[order]
        self._status = np.array([(s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for s in status], np.int64)
        self._prefixes, self._split = prefixes, [split_of(prefix) for prefix in prefixes]
        self.labels, self.classes = _labels(shards, order)

    def open(self, name: str) -> BinaryIO:
        """Reads an image whole."""
        row = bisect_left(self.names, name)
        offset, length = self.extents[row].tolist()
        if length < 0:
            raise BadImage("its bytes are not in the file")
        if length > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        with self.paths[self.shard[row]].open("rb") as file:
            file.seek(offset)
            content = file.read(length)
        if len(content) < length:
            raise BadImage("truncated")
        return io.BytesIO(content)

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and CRC-32 of an image; (0, 0) if it cannot be read."""
        try:
            with self.open(name) as stream:
                content = stream.read()
        except (OSError, BadImage):
            return 0, 0
        return len(content), zlib.crc32(content)

    def stamps(self) -> NDArray[np.int64]:
        """(N,4): inode of the shard, size of the image, and times of the shard."""
        status = self._status[self.shard]
        return np.stack([status[:, 0], self.extents[:, 1], status[:, 1], status[:, 2]], axis=1)

    def metadata(self) -> bytes | None:
        """None; the shards have the labels."""
        return None

    def table(self, path: str) -> bytes:
        """Nothing; there are no tables beside shards."""
        raise KeyError(path)

    def layout(self, names: list[str]) -> Layout:
        """Splits by the names of the shards, and classes by the labels in them."""
        from limner.data.files.layout import Layout, parts_of

        rows = [bisect_left(self.names, name) for name in names]
        of = [self._split[k] for k in self.shard[rows]]
        folders = {split: sorted({p for p, s in zip(self._prefixes, self._split) if s == split}) for split in set(of)}
        is_split = TRAIN in folders
        splits = Splits(of if is_split else [""] * len(names), names, is_split, folders)
        train, test, notes = parts_of(splits, "images")
        n = len(self._prefixes)
        message = f"found {len(names)} images in {n} {'shard' if n == 1 else 'shards'}"
        labels = self.labels[rows]
        without = int((labels < 0).sum())
        if without:
            some = f": {without} of them have none" if without < len(labels) else ""
            return Layout(train, test, None, None, [f"{message}, without classes{some}", *notes])
        counts = np.bincount(labels, minlength=len(self.classes))
        sizes = listed((name, int(count)) for name, count in zip(self.classes, counts))
        message = f"{message}, in {len(self.classes)} classes ({sizes})"
        return Layout(train, test, labels, self.classes, [message, *notes])


def split_of(path: str) -> str:
    """The split that the name of a shard or of its folder says, or "".

    >>> split_of("data/train-00000-of-00002.parquet"), split_of("validation/0000.parquet"), split_of("faces.tar")
    ('train', 'valid', '')
    """
    words = re.split(r"[^a-z]+", path.lower())
    return next((WORDS[word] for word in words if word in WORDS), "")


def _labels(shards: list[Shard], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Labels of the images of all shards, -1 for none, and the names of the classes."""
    labels = [s.labels for s in shards]
    if all(s.ordered and s.classes == shards[0].classes for s in shards):
        return np.concatenate(labels)[order], shards[0].classes
    classes = natural_order({c for s in shards for c in s.classes})
    number = {name: k for k, name in enumerate(classes)}
    renumbered = [np.array([*(number[c] for c in s.classes), -1], np.int64)[x] for s, x in zip(shards, labels)]
    return np.concatenate(renumbered)[order], classes


# --- listings in the cache -------------------------------------------------------------------------------


def _listed(path: Path) -> Shard:
    """The listing of a shard, from the cache if it has it."""
    status = path.stat()
    identity = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, reader())
    name = hashlib.sha256(repr(identity).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    try:
        folder = cache_folder("shards")
    except LimnerError:
        folder = Path(os.devnull)
    listing = folder / f"{name}.npz"
    shard = _load(listing)
    if shard is None:
        shard = import_module(FORMATS[path.suffix.lower()]).read(path, folder / f"{name}.bin")
        _save(listing, shard)
    return shard


def _load(listing: Path) -> Shard | None:
    try:
        with np.load(listing, allow_pickle=False) as file:
            extents, labels = file["extents"], file["labels"]
            facts = json.loads(bytes(file["facts"]))
            names = bytes(file["names"]).decode("utf-8", "surrogateescape").split("\0") if len(labels) else []
        facts |= {"path": Path(facts["path"]), "quarantine": [tuple(q) for q in facts["quarantine"]]}
        shard = Shard(names=names, extents=extents, labels=labels, **facts)
        n = len(names)
        fits = extents.shape == (n, 2) and labels.shape == (n,) and extents.dtype == labels.dtype == np.int64
        if not fits or (n and labels.max() >= len(shard.classes)):
            return None
        if shard.path.stat().st_size < extents.sum(axis=1).max(initial=0):
            return None
        os.utime(listing)
        if shard.path.parent == listing.parent:
            os.utime(shard.path)
    except Exception:  # whatever is wrong with it, the shard can be listed again
        return None
    return shard


def _save(listing: Path, shard: Shard) -> None:
    facts: dict[str, Any] = {k: v for k, v in vars(shard).items() if k not in ("names", "extents", "labels")}
    raw = json.dumps(facts | {"path": str(shard.path)}).encode()
    names = "\0".join(shard.names).encode("utf-8", "surrogateescape")
    try:
        with replacing(listing) as new, new.open("wb") as file:
            arrays: dict[str, Any] = {"extents": shard.extents, "labels": shard.labels}
            np.savez(file, facts=np.frombuffer(raw, np.uint8), names=np.frombuffer(names, np.uint8), **arrays)
        prune(listing.parent)
    except OSError:  # read-only or full: the next start lists the shard again
        return
