"""Emoji: drawings whose outlines are known (OpenMoji), and the same emoji drawn by two hands (Twemoji, Noto).

Both come in packages of the npm registry, which are read in place: nothing is unpacked, and nothing in them is run.
What is drawn or decoded is kept in the cache.

Held out is a tenth of all emoji by a hash of the *base* of their code points: what is left without skin tone, gender,
hair and direction. All variants of an emoji are so on one side, in every one of these sets.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import LimnerError, extra
from limner.data.arrays import Arrays
from limner.data.files import download
from limner.data.options import Options
from limner.data.registry import DOMAINS, source
from limner.data.sources.translation import Channels, TaskName, made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from limner.core.batch import Dataset
    from limner.data.pairs import DomainSet

HELD_OUT = 0.1

_SIDE, _LARGEST = 64, 256
_MOST_BYTES = 1 << 22  # of one member
_JOINERS = ("200D", "FE0F")
_VARIANTS = (
    *(f"1F3F{k}" for k in "BCDEF"),  # skin tones
    *("1F9B0", "1F9B1", "1F9B2", "1F9B3"),  # hair
    *("2640", "2642", "27A1"),  # woman, man, facing right
)
# what differs in gender or age of speech alone: man, woman, boy, girl …
_SAME = {
    "1F468": "1F9D1",
    "1F469": "1F9D1",
    "1F466": "1F9D2",
    "1F467": "1F9D2",
    "1F474": "1F9D3",
    "1F475": "1F9D3",
    "1F478": "1FAC5",
    "1F934": "1FAC5",
}
# what has a code point of its own until its persons get two skin tones
_LONG = {
    "1FAF1-1FAF2": "1F91D",
    "1F9D1-1F430-1F9D1": "1F46F",
    "1F9D1-1FAEF-1F9D1": "1F93C",
    "1F9D1-2764-1F48B-1F9D1": "1F48F",
    "1F9D1-2764-1F9D1": "1F491",
    "1F9D1-1F91D-1F9D1": "1F46B",
    "1F46C": "1F46B",
    "1F46D": "1F46B",
    "1F385": "1F9D1-1F384",
    "1F936": "1F9D1-1F384",
}


def base_of(code: str) -> str:
    """The code points of an emoji without what makes it a variant of another one.

    >>> base_of("1F469-1F3FD-200D-1F680"), base_of("1f9d1-200d-1f680")
    ('1F9D1-1F680', '1F9D1-1F680')
    >>> base_of("1F1EB-1F1F7")
    '1F1EB-1F1F7'
    """
    parts = [_SAME.get(p, p) for p in code.upper().split("-") if p not in _JOINERS]
    base = "-".join(p for p in parts if p not in _VARIANTS) or _VARIANTS[0]
    return _LONG.get(base, base)


def held_out(code: str) -> bool:
    """Whether an emoji is kept for testing: so in a tenth of all bases, the same ones for ever."""
    digest = hashlib.sha256(base_of(code).encode()).digest()
    return int.from_bytes(digest[:8]) < HELD_OUT * 2**64


@source("openmoji", gives={"pairs": {}, "images": {"part": "colour"}})
def openmoji(  # noqa: D417 - Options says it
    part: Literal["pairs", "colour"] = "pairs",
    task: TaskName | None = None,
    amount: float | None = None,
    source_channels: Channels = 1,
    *,
    options: Options,
) -> Dataset:
    """4,495 emoji as black outline -> colour, drawn at any size; a tenth held out (OpenMoji 17, CC BY-SA 4.0; 4 MiB).

    Args:
        part: "pairs" of outline and colour, or "colour" pictures alone, with their groups as classes.
        task: makes pairs of the colour pictures instead: colourise, upscale, inpaint, edges, denoise, deblur or labels.
        amount: how strong the task is, in its own unit.
        source_channels: channels of the outlines.
    """
    if part not in ("pairs", "colour"):
        raise LimnerError(f"part: {part!r} is not possible; choose from: pairs, colour")
    if amount is not None and task is None:
        raise LimnerError("amount belongs to a task; write task too, or leave amount out")
    height, width = options.height_width or (_SIDE, _SIDE)
    if max(height, width) > _LARGEST:
        raise LimnerError(f"openmoji is drawn in memory; choose a size of at most {_LARGEST}")
    if part == "pairs" and task is None and options.binarise != "none":
        raise LimnerError("pairs are not binarised; leave 'binarise' out")
    from limner.data.datasets import from_arrays
    from limner.data.pairs import PairSet, StackedPairs

    remote = download.REMOTES["openmoji"]
    sheet = _openmoji(download.fetch(remote, next(iter(remote.sha256))), max(height, width))
    colour = from_arrays("openmoji", sheet.arrays("colour"), options)
    if task is not None:
        return made(colour, task, amount)
    if part == "colour":
        return colour
    outline = from_arrays("openmoji", sheet.arrays("black"), replace(options, channels=source_channels))
    return PairSet(StackedPairs(outline, colour))


@source("emoji", gives=DOMAINS)
def emoji(*, options: Options) -> DomainSet:
    """3,786 emoji at 64×64 in two styles, Twemoji and Noto, without pairs; a tenth held out, whose pairs are known.

    Twemoji: CC BY 4.0; Noto Emoji: Apache-2.0. A download of 130 MiB.
    """
    from limner.data.datasets import from_arrays
    from limner.data.pairs import DomainSet

    remotes = [download.REMOTES[name] for name in ("twemoji", "noto-emoji")]
    sheet = _both_styles(*(download.fetch(remote, next(iter(remote.sha256))) for remote in remotes))
    if options.split == "train":  # then the order of one says nothing about that of the other
        second = sheet.shuffled().arrays("google")
    else:
        second = sheet.arrays("google")
    first = from_arrays("twemoji", sheet.arrays("twitter"), options)
    second.notes.clear()  # the first has said it
    return DomainSet(first, from_arrays("noto-emoji", second, options), "emoji", known=options.split != "train")


@dataclass
class _Sheet:
    """Emoji, each in two pictures.

    Args:
        codes: (N,) their code points in hexadecimal, joined by "-".
        groups: (N,) what each belongs to.
        pictures: name -> (N,H,W) or (N,H,W,3) uint8.
        note: whose they are.
    """

    codes: list[str]
    groups: list[str]
    pictures: dict[str, NDArray[np.uint8]]
    note: str

    def arrays(self, name: str) -> Arrays:
        """One of the pictures of each, with groups as classes."""
        import numpy as np

        classes = list(dict.fromkeys(self.groups))
        place = {group: k for k, group in enumerate(classes)}
        labels = np.array([place[g] for g in self.groups], dtype=np.int64)
        test = np.array([held_out(c) for c in self.codes])
        said = "held out: a tenth by code point, with all its skin tones and genders"
        return Arrays(self.pictures[name], labels, classes, test, notes=[self.note, said])

    def shuffled(self) -> _Sheet:
        """The same in another order, always the same one."""
        import numpy as np

        marks = [hashlib.sha256(c.encode()).digest() for c in self.codes]
        order = sorted(range(len(marks)), key=lambda i: marks[i])
        pictures = {name: x[np.array(order)] for name, x in self.pictures.items()}
        return _Sheet([self.codes[i] for i in order], [self.groups[i] for i in order], pictures, self.note)


# --- OpenMoji --------------------------------------------------------------------------------------


def _openmoji(archive: Path, side: int) -> _Sheet:
    """All drawings of the package at side×side, on white."""
    resvg = extra("resvg_py", "emoji", "openmoji is drawn by resvg-py")
    key = f"{side}px-{_sum(archive)}-resvg-py-{version('resvg-py')}"
    return _kept("openmoji", key, "OpenMoji, CC BY-SA 4.0, openmoji.org", lambda: _draw(archive, side, resvg))


def _draw(archive: Path, side: int, resvg: Any) -> dict[str, Any]:
    """Code points, groups and pictures of each emoji that has both drawings."""
    import numpy as np
    from PIL import Image

    found = dict(_members(archive, ("color/svg/", "black/svg/", "data/openmoji.json")))
    entries = _entries(archive, found.get("data/openmoji.json"), ("hexcode", "group"))
    both = [e for e in entries if all(f"{kind}/svg/{e['hexcode']}.svg" in found for kind in ("color", "black"))]
    if not both:
        raise LimnerError(f"{archive.name} has no drawings in color/svg and black/svg; fetch it again")
    colour = np.empty((len(both), side, side, 3), dtype=np.uint8)
    black = np.empty((len(both), side, side), dtype=np.uint8)
    shape = {"width": side, "height": side, "background": "white", "skip_system_fonts": True}
    for i, entry in enumerate(both):
        for out, kind, mode in ((colour, "color", "RGB"), (black, "black", "L")):
            try:
                svg = found[f"{kind}/svg/{entry['hexcode']}.svg"].decode()
                png = resvg.svg_to_bytes(svg_string=svg, **shape)
            except ValueError as error:
                raise LimnerError(f"{archive.name}: {entry['hexcode']}.svg cannot be drawn: {error}") from None
            out[i] = np.asarray(Image.open(io.BytesIO(bytes(png)), formats=("PNG",)).convert(mode))
    codes, groups = ([str(e[k]) for e in both] for k in ("hexcode", "group"))
    return {"codes": np.array(codes), "groups": np.array(groups), "colour": colour, "black": black}


# --- Twemoji and Noto ------------------------------------------------------------------------------


def _both_styles(twitter: Path, google: Path) -> _Sheet:
    """What both packages have under the same name, over white."""
    note = "Twemoji, CC BY 4.0; Noto Emoji, Apache-2.0"
    return _kept("emoji", f"{_sum(twitter)}-{_sum(google)}", note, lambda: _decode(twitter, google))


def _decode(twitter: Path, google: Path) -> dict[str, Any]:
    """Code points, groups and pictures of each emoji that both have."""
    import numpy as np

    from limner.data.files import decode

    drawn = {
        style: dict(_members(archive, (f"img/{style}/64/", "emoji.json")))
        for style, archive in (("twitter", twitter), ("google", google))
    }
    groups: dict[str, str] = {}
    for entry in _entries(twitter, drawn["twitter"].get("emoji.json"), ("image", "category")):
        for one in (entry, *(entry.get("skin_variations") or {}).values()):
            groups[one["image"]] = entry["category"]
    named = [n for n in sorted(groups) if all(f"img/{s}/64/{n}" in found for s, found in drawn.items())]
    if not named:
        raise LimnerError(f"{twitter.name} and {google.name} have no pictures of the same name; fetch them again")
    pictures = {style: np.empty((len(named), 64, 64, 3), dtype=np.uint8) for style in drawn}
    with decode.strict():
        for style, found in drawn.items():
            for i, name in enumerate(named):
                try:
                    image = decode.picture(io.BytesIO(found[f"img/{style}/64/{name}"]))
                except Exception as error:  # a damaged package, whatever Pillow makes of it
                    raise LimnerError(f"emoji: {style}'s {name} is unusable: {decode.reason(error)}") from None
                pictures[style][i] = np.asarray(decode.channelled(decode.fitted(image, (64, 64)), 3))
    codes = [name.removesuffix(".png") for name in named]
    return {"codes": np.array(codes), "groups": np.array([groups[n] for n in named]), **pictures}


# --- packages and cache ----------------------------------------------------------------------------


def _members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The files of an npm package that begin so, by their path in it.

    Raises:
        LimnerError: it is damaged.
    """
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = member.name.removeprefix("package/")
                if name.startswith(wanted) and member.isfile() and member.size <= _MOST_BYTES:
                    stream = tar.extractfile(member)
                    if stream is not None:
                        yield name, stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LimnerError(f"{archive.name} is damaged ({error}); delete it and fetch it again") from None


def _entries(archive: Path, raw: bytes | None, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The list of emoji in a package.

    Raises:
        LimnerError: there is none.
    """
    try:
        entries = json.loads(raw or b"")
        if all(isinstance(entry[key], str) for entry in entries for key in keys):
            return entries
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise LimnerError(f"{archive.name} has no list of its emoji; delete it and fetch it again")


def _sum(archive: Path) -> str:
    with archive.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _kept(name: str, key: str, note: str, make: Callable[[], dict[str, Any]]) -> _Sheet:
    """Pictures from the cache, or made and put there."""
    import numpy as np

    place = download.cache_folder(name) / f"{key}.npz"
    try:
        with np.load(place, allow_pickle=False) as file:
            return _sheet({k: file[k] for k in file.files}, note)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # not there yet, or damaged: then it is made anew
    found = make()
    try:
        with download.replacing(place) as new, new.open("wb") as stream:
            np.savez_compressed(stream, **found)
    except OSError:
        pass  # a cache that cannot be written costs time, no more
    return _sheet(found, note)


def _sheet(found: dict[str, Any], note: str) -> _Sheet:
    return _Sheet(found.pop("codes").tolist(), found.pop("groups").tolist(), found, note)
