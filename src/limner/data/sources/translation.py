"""Data sets for translation: pairs from folders or made by a degradation, and two domains without pairs.

`limner.data.files.pair_layout` describes the layouts. A folder test/ (or valid/) is held out, or else 5 % by a hash of
the name. Augmentation mirrors and moves a source and its target together.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import LimnerError
from limner.core.paths import plain_name
from limner.data.files import download
from limner.data.files.reading import LATEST, Reading
from limner.data.options import Options
from limner.data.registry import DOMAINS, PAIRS, SOURCES, SetOrPath, source
from limner.data.sources import folder

if TYPE_CHECKING:
    from limner.core.batch import Dataset
    from limner.data.pairs import DomainSet, PairSet

TaskName = Literal["colourise", "upscale", "inpaint", "edges", "denoise", "deblur", "labels"]
Layout = Literal["auto", "folders", "joined"]
Channels = Literal[1, 2, 3, 4]

_TASKS = "colourise, upscale, inpaint, edges, denoise, deblur or labels"


@source("pairs", gives=PAIRS)
def pairs(  # noqa: D417 - see Options
    path: SetOrPath,
    task: TaskName | None = None,
    amount: float | None = None,
    swap: bool = False,
    source_channels: Channels | None = None,
    layout: Layout = "auto",
    cache: bool | None = None,
    reading: Reading = LATEST,
    *,
    options: Options,
) -> PairSet:
    """Your own pairs: folders A/ and B/ with the same names, or A|B side by side in one picture; or any set and a task.

    Args:
        path: the folder or ZIP; with a task also the name of any set of images.
        task: make a source of each picture, so that any pictures can be used: colourise, upscale, inpaint, edges,
            denoise, deblur or labels.
        amount: strength of the task, in its unit: the factor of upscale, the share of holes, sigma, or colours.
        swap: make pictures of A from pictures of B.
        source_channels: channels of the sources, as `channels` of the targets; by default those of the files.
        layout: "folders" A/ and B/, or "joined" in one picture. Set it if "auto" is wrong.
        cache: hold all pairs in memory; by default if they take at most 512 MiB. Set it to false if memory is short.
        reading: as of the source folder.
    """
    if task is None:
        if amount is not None:
            raise LimnerError("amount belongs to a task; write task too, or leave amount out")
        if plain_name(path) in SOURCES:
            raise LimnerError(f"{path} has no pairs; write task={_TASKS} to make them")
        settings = {"swap": swap, "source_channels": source_channels, "layout": layout}
        return _read_pairs(path, options, **settings, cache=cache, reading=reading)
    if swap or source_channels or layout != "auto":
        raise LimnerError(f"task {task} makes the sources: leave swap, source_channels and layout out")
    return make_pairs(_images(path, options, reading, cache), task, amount)


def make_pairs(images: Dataset, task: str, amount: float | None) -> PairSet:
    """Makes pairs of images and their degraded versions.

    Raises:
        LimnerError: there is no such task, or it cannot be done on such images.
    """
    from limner.data.degradations import make
    from limner.data.pairs import PairSet

    return PairSet(images, make(task, amount))


@source("domains", gives=DOMAINS)
def domains(  # noqa: D417 - see Options
    path: SetOrPath | None = None,
    a: SetOrPath | None = None,
    b: SetOrPath | None = None,
    reading: Reading = LATEST,
    *,
    options: Options,
) -> DomainSet:
    """Two sets without pairs: a folder with trainA, trainB, testA and testB, or with A/ and B/; or any two sets.

    Both get the same size and channels: RGB if either set has colour.

    Args:
        path: the folder or ZIP that has both sets.
        a: instead of path: the first set, a folder, a ZIP or a name.
        b: instead of path: the second set.
        reading: as of the source folder.
    """
    if path is None:
        if a is None or b is None:
            raise LimnerError("domains needs two sets: write path, a folder with A/ and B/, or write both a and b")
        title = " and ".join(Path(plain_name(side)).name for side in (a, b))
        return _same_shape(lambda o: _images(a, o, reading), lambda o: _images(b, o, reading), options, title)
    if a is not None or b is not None:
        raise LimnerError("path has both domains already; write either path, or a and b")
    if plain_name(path) in SOURCES:
        raise LimnerError(f"{path} is one domain and two are needed; write a={path} b=… (a folder, a ZIP or a name)")
    return _read_domains(path, Path(path).name, options, reading)


@source("facades128", gives=PAIRS)
def facades128(  # noqa: D417 - see Options
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """500 façades at 128×128, label map -> photograph, 100 of them to test on; from LIMNER_DATA only.

    Args:
        swap: photograph -> label map instead.
        source_channels: channels of the sources, as `channels` of the targets; by default those of the files.
    """
    path = _find_local("facades128")
    if path is None:
        raise LimnerError(
            "facades128 has no download: set LIMNER_DATA to the folder that has facades128.zip, or take facades, "
            "the same façades at 256 pixels, which has one"
        )
    return _read_pairs(str(path), options, swap=swap, source_channels=source_channels, name="facades128")


@source("facades", gives=PAIRS)
def facades(  # noqa: D417 - see Options
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """506 façades at 256×256, label map -> photograph, 106 of them to test on (Tyleček 2013; a download of 34 MiB).

    Args:
        swap: photograph -> label map instead.
        source_channels: channels of the sources, as `channels` of the targets; by default those of the files.
    """
    # in both published versions, the photograph is A
    return _read_pairs(_published("facades"), options, swap=not swap, source_channels=source_channels, name="facades")


@source("maps", gives=PAIRS)
def maps(  # noqa: D417 - see Options
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """2,194 aerial photographs -> maps at 600×600, half of them to test on (Isola et al. 2017; a download of 1.4 GiB).

    Args:
        swap: map -> aerial photograph instead.
        source_channels: channels of the sources, as `channels` of the targets; by default those of the files.
    """
    return _read_pairs(_published("maps"), options, swap=swap, source_channels=source_channels, name="maps")


@source("horse2zebra", gives=DOMAINS)
def horse2zebra(*, options: Options) -> DomainSet:
    """Horses and zebras at 256×256, without pairs (Zhu et al. 2017; a download of 111 MiB)."""
    return _read_domains(_published("horse2zebra"), "horse2zebra", options)


@source("summer2winter", gives=DOMAINS)
def summer2winter(*, options: Options) -> DomainSet:
    """Yosemite in summer and in winter at 256×256, without pairs (Zhu et al. 2017; a download of 126 MiB)."""
    return _read_domains(_published("summer2winter"), "summer2winter", options)


@source("monet2photo", gives=DOMAINS)
def monet2photo(*, options: Options) -> DomainSet:
    """Monet's paintings and photographs at 256×256, without pairs (Zhu et al. 2017; a download of 291 MiB)."""
    return _read_domains(_published("monet2photo"), "monet2photo", options)


def _images(name: str, options: Options, reading: Reading = LATEST, cache: bool | None = None) -> Dataset:
    """Loads images from a folder, a ZIP, or a named set.

    Raises:
        LimnerError: the named set has no images.
    """
    name = plain_name(name)
    build = SOURCES.get(name)
    if build is None:
        return SOURCES["folder"](name, cache=cache, reading=reading, **asdict(options))
    gives = build.gives
    if "images" not in gives:
        raise LimnerError(f"{name} gives {next(iter(gives))} and not images; give a folder or another name")
    return build(**asdict(options) | dict(gives["images"]))


# --- two domains -----------------------------------------------------------------------------------


def _read_domains(path: str, name: str, options: Options, reading: Reading = LATEST) -> DomainSet:
    """Reads the two domains of a folder or ZIP."""
    from limner.data.files.pair_layout import View, domain_paths, on_no_side
    from limner.data.files.store import open_store
    from limner.data.files.table_names import by_suffix

    store = open_store(path, reading)
    folder.refuse_empty(path, store)
    paths = domain_paths(store.names, reading)
    if paths is None:
        raise LimnerError(
            f"{path!r} has no two domains: put them into A/ and B/, or into trainA, trainB, testA and testB; "
            "or give two folders, a=… and b=…"
        )
    views = [View(store, {p.path: n for n, p in paths.items() if p.domain == letter}, letter) for letter in ("a", "b")]
    views[0].quarantine, views[0].hidden = store.quarantine, store.hidden
    views[0].ignored = store.ignored + by_suffix(store.tables)
    first, second = (partial(folder.read, view, path, None) for view in views)
    both = _same_shape(first, second, options, name)
    both.notes += on_no_side(store.names, paths)
    return both


def _same_shape(
    first: Callable[[Options], Dataset], second: Callable[[Options], Dataset], options: Options, name: str
) -> DomainSet:
    """Reads both domains, and where their shapes differ, reads them again with a common shape."""
    from limner.data.pairs import DomainSet

    a, b = first(options), second(options)
    notes: list[str] = []
    if a.shape != b.shape:
        c, h, w = zip(a.shape, b.shape)
        channels: Any = c[0] if c[0] == c[1] else 3 if max(c) >= 3 else 1
        shape = (channels, min(h), min(w))
        common = replace(options, size=shape[1:], channels=channels)
        a, b = (x if x.shape == shape else read(common) for x, read in ((a, first), (b, second)))
        notes.append(f"both domains at {shape[1]}x{shape[2]} with {channels} channels")
    for dataset, letter in ((a, "a"), (b, "b")):
        dataset.notes[:] = [f"{letter}: {note}" for note in dataset.notes]
    return DomainSet(a, b, name, notes=notes)


def _read_pairs(path: str, options: Options, **settings: Any) -> PairSet:
    from limner.data.files.lazy_pairs import read_pairs  # imports torch

    return read_pairs(path, options, **settings)


# --- files of published sets ------------------------------------------------------------------------


def _published(name: str) -> str:
    """The folder or ZIP of a named set: a local copy, or else a download.

    Raises:
        LimnerError: it cannot be downloaded.
    """
    remote = download.REMOTES[name]
    file = next(iter(remote.sha256))
    return str(download.local(remote, file) or _find_local(name) or download.fetch(remote, file))


def _find_local(name: str) -> Path | None:
    """NAME.zip, NAME.tar.gz (as a ZIP in the cache) or the folder NAME in LIMNER_DATA."""
    path = download.find_local(name, ".zip", ".tar.gz", ".tgz", "")
    return _as_zip(name, path) if path is not None and path.name.endswith("gz") else path


def _as_zip(name: str, archive: Path) -> Path:
    """Copies the images of a tar.gz into a ZIP in the cache, once, because a ZIP can be read in place and a tar cannot.

    Links, devices and other files are not copied, and no file gets a name from the archive.

    Raises:
        LimnerError: the archive is damaged, or the cache cannot be written.
    """
    from limner.data.files.decode import MAX_BYTES, SUFFIXES

    status = archive.stat()
    path = download.cache_folder(name) / f"{archive.name}-{status.st_size}-{status.st_mtime_ns}.zip"
    if path.is_file():
        return path
    try:
        with (
            download.replacing(path) as new,
            tarfile.open(archive, "r|gz") as tar,
            zipfile.ZipFile(new, "w") as packed,
        ):
            for member in tar:
                is_image = PurePosixPath(member.name).suffix.lower() in SUFFIXES and member.size <= MAX_BYTES
                stream = tar.extractfile(member) if is_image and member.isfile() else None
                if stream is not None:
                    packed.writestr(zipfile.ZipInfo(member.name.removeprefix("./")), stream.read())
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise LimnerError(f"{archive.name} is damaged ({error}); delete it and fetch it again") from None
    except OSError as error:
        raise LimnerError(f"{archive.name} cannot be unpacked into {path.parent}: {error.strerror or error}") from None
    return path
