"""Data sets for translation: pairs from folders or made by a degradation, and two domains without pairs.

`limner.data.files.pair_layout` describes the layouts. A folder test/ (or val/) is held out, or else 5 % by a hash of the
name. Augmentation mirrors and moves a source and its target together.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import LimnerError
from limner.data.files import download
from limner.data.options import Options
from limner.data.registry import DOMAINS, PAIRS, SOURCES, source
from limner.data.sources import folder

if TYPE_CHECKING:
    from limner.core.batch import Dataset
    from limner.data.files.store import Store
    from limner.data.pairs import DomainSet, PairSet

TaskName = Literal["colourise", "upscale", "inpaint", "edges", "denoise", "deblur", "labels"]
Lies = Literal["auto", "folders", "joined"]
Channels = Literal[1, 2, 3, 4]

_TASKS = "colourise, upscale, inpaint, edges, denoise, deblur or labels"


@source("pairs", gives=PAIRS)
def pairs(  # noqa: D417 - Options says it
    path: str,
    task: TaskName | None = None,
    amount: float | None = None,
    swap: bool = False,
    source_channels: Channels | None = None,
    layout: Lies = "auto",
    cache: bool | None = None,
    *,
    options: Options,
) -> PairSet:
    """Your own pairs: folders A/ and B/ with the same names, or A|B side by side in one picture; or any set and a task.

    Args:
        path: the folder or ZIP; with a task also the name of any set of images.
        task: makes a source of each picture, so that any pictures will do: colourise, upscale, inpaint, edges, denoise,
            deblur or labels.
        amount: how strong the task is, in its own unit: a factor to upscale by, a share of holes, sigma, colours.
        swap: make pictures of A from pictures of B.
        source_channels: like channels, of the sources; by default what they have.
        layout: where sources and targets lie: "folders" A/ and B/, or "joined" in one picture. Write it if "auto" errs.
        cache: hold all pairs in memory; by default if they take at most 512 MiB. Set it to false if memory is short.
    """
    if task is None:
        if amount is not None:
            raise LimnerError("amount belongs to a task; write task too, or leave amount out")
        if path in SOURCES:
            raise LimnerError(f"{path} has no pairs that 'pairs' could take; write task={_TASKS} to make them")
        return _found(path, options, swap=swap, source_channels=source_channels, layout=layout, cache=cache)
    if swap or source_channels or layout != "auto":
        raise LimnerError(f"task {task} makes the sources: leave swap, source_channels and layout out")
    return made(_images(path, options, cache), task, amount)


def made(pictures: Dataset, task: str, amount: float | None) -> PairSet:
    """Pairs of any pictures.

    Raises:
        LimnerError: there is no such task, or it cannot be done on such pictures.
    """
    from limner.data.degradations import make
    from limner.data.pairs import PairSet

    return PairSet(pictures, make(task, amount))


@source("domains", gives=DOMAINS)
def domains(  # noqa: D417 - Options says it
    path: str | None = None, a: str | None = None, b: str | None = None, *, options: Options
) -> DomainSet:
    """Two sets without pairs: a folder with trainA, trainB, testA and testB, or with A/ and B/; or any two sets.

    Both get the same size and channels: RGB if either has colour.

    Args:
        path: the folder or ZIP that has both.
        a: instead of path: the first set, a folder, a ZIP or a name.
        b: instead of path: the second set.
    """
    if path is None:
        if a is None or b is None:
            raise LimnerError("two domains are wanted: write path, a folder with A/ and B/, or write both a and b")
        return _two(lambda o: _images(a, o), lambda o: _images(b, o), options, f"{Path(a).name} and {Path(b).name}")
    if a is not None or b is not None:
        raise LimnerError("path has both domains already; write either path, or a and b")
    if path in SOURCES:
        raise LimnerError(f"{path} is one domain and two are wanted; write a={path} b=… (a folder, a ZIP or a name)")
    return _sides(path, Path(path).name, options)


@source("facades128", gives=PAIRS)
def facades128(  # noqa: D417 - Options says it
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """500 façades at 128×128, label map -> photograph, 100 of them to test on; from LIMNER_DATA only.

    Args:
        swap: photograph -> label map instead.
        source_channels: like channels, of the sources; by default what they have.
    """
    place = _own("facades128")
    if place is None:
        raise LimnerError(
            "facades128 is not published: set LIMNER_DATA to the folder that has facades128.zip, or take facades, "
            "the same façades at 256 pixels, which can be downloaded"
        )
    return _found(str(place), options, swap=swap, source_channels=source_channels, name="facades128")


@source("facades", gives=PAIRS)
def facades(  # noqa: D417 - Options says it
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """506 façades at 256×256, label map -> photograph, 106 of them to test on (Tyleček 2013; a download of 34 MiB).

    Args:
        swap: photograph -> label map instead.
        source_channels: like channels, of the sources; by default what they have.
    """
    # in the files, the photograph is A
    return _found(_published("facades"), options, swap=not swap, source_channels=source_channels, name="facades")


@source("maps", gives=PAIRS)
def maps(  # noqa: D417 - Options says it
    swap: bool = False, source_channels: Channels | None = None, *, options: Options
) -> PairSet:
    """2,194 aerial photographs -> maps at 600×600, half of them to test on (Isola et al. 2017; a download of 1.4 GiB).

    Args:
        swap: map -> aerial photograph instead.
        source_channels: like channels, of the sources; by default what they have.
    """
    return _found(_published("maps"), options, swap=swap, source_channels=source_channels, name="maps")


@source("horse2zebra", gives=DOMAINS)
def horse2zebra(*, options: Options) -> DomainSet:
    """Horses and zebras at 256×256, without pairs (Zhu et al. 2017; a download of 111 MiB)."""
    return _sides(_published("horse2zebra"), "horse2zebra", options)


@source("summer2winter", gives=DOMAINS)
def summer2winter(*, options: Options) -> DomainSet:
    """Yosemite in summer and in winter at 256×256, without pairs (Zhu et al. 2017; a download of 126 MiB)."""
    return _sides(_published("summer2winter"), "summer2winter", options)


@source("monet2photo", gives=DOMAINS)
def monet2photo(*, options: Options) -> DomainSet:
    """Monet's paintings and photographs at 256×256, without pairs (Zhu et al. 2017; a download of 291 MiB)."""
    return _sides(_published("monet2photo"), "monet2photo", options)


def _images(name: str, options: Options, cache: bool | None = None) -> Dataset:
    """Pictures from a folder, a ZIP, or a named set of images.

    Raises:
        LimnerError: the named set gives none.
    """
    build = SOURCES.get(name)
    if build is None:
        return SOURCES["folder"](name, cache=cache, **asdict(options))
    gives = build.gives
    if "images" not in gives:
        raise LimnerError(f"{name} gives {next(iter(gives))}, and pictures are wanted; give a folder or another name")
    return build(**asdict(options) | dict(gives["images"]))


# --- two domains -----------------------------------------------------------------------------------


def _sides(path: str, name: str, options: Options) -> DomainSet:
    """The two domains of a folder or ZIP."""
    from limner.data.files.pair_layout import View, places_of
    from limner.data.files.store import open_store

    store = open_store(path)
    folder.refuse_empty(path, store)
    placed = places_of(store.names)
    if placed is None:
        raise LimnerError(
            f"{path!r} has no two domains: put them into A/ and B/, or into trainA, trainB, testA and testB; "
            "or give two folders, a=… and b=…"
        )
    views = [View(store, {p.path: n for n, p in placed.items() if p.side == side}) for side in ("a", "b")]
    views[0].quarantine = store.quarantine
    first, second = (_reader(view, path) for view in views)
    return _two(first, second, options, name)


def _reader(store: Store, path: str) -> Callable[[Options], Dataset]:
    return lambda options: folder.read(store, path, None, options)


def _two(
    first: Callable[[Options], Dataset], second: Callable[[Options], Dataset], options: Options, name: str
) -> DomainSet:
    """Both domains; where they come out differently, once more with what they can have in common."""
    from limner.data.pairs import DomainSet

    a, b = first(options), second(options)
    notes: list[str] = []
    if a.shape != b.shape:
        c, h, w = zip(a.shape, b.shape)
        channels: Any = c[0] if c[0] == c[1] else 3 if max(c) >= 3 else 1
        shape = (channels, min(h), min(w))
        alike = replace(options, size=shape[1:], channels=channels)
        a, b = (one if one.shape == shape else read(alike) for one, read in ((a, first), (b, second)))
        notes.append(f"both domains at {shape[1]}x{shape[2]} with {channels} channels")
    for one, letter in ((a, "a"), (b, "b")):
        one.notes[:] = [f"{letter}: {note}" for note in one.notes]
    return DomainSet(a, b, name, notes=notes)


def _found(path: str, options: Options, **asked: Any) -> PairSet:
    """The pairs of a folder or ZIP."""
    from limner.data.files.lazy_pairs import read_pairs

    return read_pairs(path, options, **asked)


# --- where published sets lie ----------------------------------------------------------------------


def _published(name: str) -> str:
    """The folder or ZIP of a named set: at hand under LIMNER_DATA, or downloaded.

    Raises:
        LimnerError: it cannot be had.
    """
    remote = download.REMOTES[name]
    file = next(iter(remote.sha256))
    place = download.local(remote, file) or _own(name)
    return str(place or download.fetch(remote, file))


def _own(name: str) -> Path | None:
    """What lies under LIMNER_DATA: NAME.zip, NAME.tar.gz or the folder NAME."""
    place = download.own(name, ".zip", ".tar.gz", ".tgz", "")
    return _as_zip(name, place) if place is not None and place.name.endswith("gz") else place


def _as_zip(name: str, archive: Path) -> Path:
    """The pictures of a tar.gz, packed anew as a ZIP in the cache, once: a ZIP can be read in place, a tar cannot.

    Links, devices and other files are left behind, and nothing is written under a name that the archive chose.

    Raises:
        LimnerError: the archive is damaged, or the cache cannot be written.
    """
    from limner.data.files.decode import MAX_BYTES, SUFFIXES

    status = archive.stat()
    place = download.cache_folder(name) / f"{archive.name}-{status.st_size}-{status.st_mtime_ns}.zip"
    if place.is_file():
        return place
    try:
        with (
            download.replacing(place) as new,
            tarfile.open(archive, "r|gz") as tar,
            zipfile.ZipFile(new, "w") as packed,
        ):
            for member in tar:
                wanted = PurePosixPath(member.name).suffix.lower() in SUFFIXES and member.size <= MAX_BYTES
                stream = tar.extractfile(member) if wanted and member.isfile() else None
                if stream is not None:
                    packed.writestr(zipfile.ZipInfo(member.name.removeprefix("./")), stream.read())
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise LimnerError(f"{archive.name} is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise LimnerError(f"{archive.name} cannot be unpacked into {place.parent}: {error.strerror or error}") from None
    return place
