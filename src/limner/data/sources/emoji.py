"""Emoji: drawings with their outlines (OpenMoji), and the same emoji in two styles (Twemoji, Noto).

They come in packages of the npm registry, which are read in place: no file is unpacked and no code is run. Rendered and
decoded images are cached.

A tenth of all emoji is held out, by a hash of the *base* of their code points: the code points without skin tone,
gender, hair and direction. In all of these sets, the variants of an emoji are therefore in the same split.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
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
from limner.data.sources.translation import Channels, TaskName, make_pairs

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
# gendered persons -> the neutral person: man, woman, boy, girl …
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
# sequences that are used where two persons have different skin tones -> the single code point
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
    """The code points of an emoji without those that make it a variant.

    >>> base_of("1F469-1F3FD-200D-1F680"), base_of("1f9d1-200d-1f680")
    ('1F9D1-1F680', '1F9D1-1F680')
    >>> base_of("1F1EB-1F1F7")
    '1F1EB-1F1F7'
    """
    parts = [_SAME.get(p, p) for p in code.upper().split("-") if p not in _JOINERS]
    base = "-".join(p for p in parts if p not in _VARIANTS) or _VARIANTS[0]
    return _LONG.get(base, base)


def held_out(code: str) -> bool:
    """Whether an emoji is held out, as it is for a tenth of all bases; it depends on the base alone."""
    digest = hashlib.sha256(base_of(code).encode()).digest()
    return int.from_bytes(digest[:8]) < HELD_OUT * 2**64


_TONES = ("none", "light", "medium-light", "medium", "medium-dark", "dark")  # 0 to 5 in OpenMoji's list
_SEVERAL = "several"  # of persons with different skin tones


@source("openmoji", gives={"pairs": {}, "images": {"part": "colour"}})
def openmoji(  # noqa: D417 - see Options
    part: Literal["pairs", "colour"] = "pairs",
    task: TaskName | None = None,
    amount: float | None = None,
    source_channels: Channels = 1,
    labels: Literal["group", "annotations"] = "group",
    *,
    options: Options,
) -> Dataset:
    """4,495 emoji as black outline -> colour, drawn at any size; a tenth held out (OpenMoji 17, CC BY-SA 4.0; 4 MiB).

    Args:
        part: "pairs" of outline and colour, or "colour" for the colour pictures alone, with their groups as classes.
        task: make pairs of the colour pictures instead: colourise, upscale, inpaint, edges, denoise, deblur or labels.
        amount: strength of the task, in its unit; `limner explain pairs` lists them.
        source_channels: channels of the outlines.
        labels: what is told of the colour pictures alone: their "group", as classes, or OpenMoji's "annotations":
            group, subgroup and skin tone as attributes, and their name in English as a caption.
    """
    if part not in ("pairs", "colour"):
        raise LimnerError(f"part: {part!r} is not possible; choose from: pairs, colour")
    if labels != "group" and (part != "colour" or task is not None):
        raise LimnerError("labels belong to the colour pictures alone; write part=colour too, or leave labels out")
    if amount is not None and task is None:
        raise LimnerError("amount belongs to a task; write task too, or leave amount out")
    height, width = options.height_width or (_SIDE, _SIDE)
    if max(height, width) > _LARGEST:
        raise LimnerError(f"openmoji is rendered in memory; choose a size of at most {_LARGEST}")
    if part == "pairs" and task is None and options.binarise != "none":
        raise LimnerError("pairs are not binarised; leave 'binarise' out")
    from limner.data.datasets import from_arrays
    from limner.data.pairs import PairSet, StackedPairs

    remote = download.REMOTES["openmoji"]
    archive = download.fetch(remote, next(iter(remote.sha256)))
    images = _openmoji(archive, max(height, width))
    arrays = images.arrays("colour")
    if labels == "annotations":
        arrays = _annotated(arrays, archive, images.codes)
    colour = from_arrays("openmoji", arrays, options)
    if task is not None:
        return make_pairs(colour, task, amount)
    if part == "colour":
        return colour
    outline = from_arrays("openmoji", images.arrays("black"), replace(options, channels=source_channels))
    return PairSet(StackedPairs(outline, colour))


@source("emoji", gives=DOMAINS)
def emoji(*, options: Options) -> DomainSet:
    """3,786 emoji at 64×64 in two styles, Twemoji and Noto, without pairs; a tenth is held out, with known pairs.

    Twemoji: CC BY 4.0; Noto Emoji: Apache-2.0. A download of 130 MiB.
    """
    from limner.data.datasets import from_arrays
    from limner.data.pairs import DomainSet

    remotes = [download.REMOTES[name] for name in ("twemoji", "noto-emoji")]
    images = _both_styles(*(download.fetch(remote, next(iter(remote.sha256))) for remote in remotes))
    # in training, the order of one domain must not reveal that of the other
    second = (images.shuffled() if options.split == "train" else images).arrays("google")
    second.notes.clear()  # they are those of the first
    first = from_arrays("twemoji", images.arrays("twitter"), options)
    return DomainSet(first, from_arrays("noto-emoji", second, options), "emoji", known=options.split != "train")


@dataclass
class _Emoji:
    """Emoji, each in two images.

    Args:
        codes: (N,) code points in hexadecimal, joined by "-".
        groups: (N,) the group of each emoji.
        images: name -> (N,H,W) or (N,H,W,3) uint8.
        note: authors and licence.
    """

    codes: list[str]
    groups: list[str]
    images: dict[str, NDArray[np.uint8]]
    note: str

    def arrays(self, name: str) -> Arrays:
        """The images called `name`, with groups as classes."""
        import numpy as np

        classes = list(dict.fromkeys(self.groups))
        index = {group: k for k, group in enumerate(classes)}
        labels = np.array([index[g] for g in self.groups], dtype=np.int64)
        test = np.array([held_out(c) for c in self.codes])
        note = "held out: a tenth by code point, with all its skin tones and genders"
        return Arrays(self.images[name], labels, classes, test, notes=[self.note, note])

    def shuffled(self) -> _Emoji:
        """The same emoji in a fixed random order."""
        import numpy as np

        order = sorted(range(len(self.codes)), key=lambda i: hashlib.sha256(self.codes[i].encode()).digest())
        images = {name: x[np.array(order)] for name, x in self.images.items()}
        return _Emoji([self.codes[i] for i in order], [self.groups[i] for i in order], images, self.note)


# --- OpenMoji --------------------------------------------------------------------------------------


def _openmoji(archive: Path, side: int) -> _Emoji:
    """All drawings of the package at side×side, on white."""
    resvg = extra("resvg_py", "emoji", "openmoji is drawn by resvg-py")
    key = f"{side}px-{_checksum(archive)}-resvg-py-{version('resvg-py')}"
    return _cached("openmoji", key, "OpenMoji, CC BY-SA 4.0, openmoji.org", lambda: _render(archive, side, resvg))


def _render(archive: Path, side: int, resvg: Any) -> dict[str, Any]:
    """Code points, groups and images of each emoji that has both drawings."""
    import numpy as np
    from PIL import Image

    files = dict(_members(archive, ("color/svg/", "black/svg/", "data/openmoji.json")))
    entries = _entries(archive, files.get("data/openmoji.json"), ("hexcode", "group"))
    both = [e for e in entries if all(f"{kind}/svg/{e['hexcode']}.svg" in files for kind in ("color", "black"))]
    if not both:
        raise LimnerError(f"{archive.name} has no drawings in color/svg and black/svg; delete it and fetch it again")
    colour = np.empty((len(both), side, side, 3), dtype=np.uint8)
    black = np.empty((len(both), side, side), dtype=np.uint8)
    options = {"width": side, "height": side, "background": "white", "skip_system_fonts": True}
    for i, entry in enumerate(both):
        for out, kind, mode in ((colour, "color", "RGB"), (black, "black", "L")):
            try:
                svg = files[f"{kind}/svg/{entry['hexcode']}.svg"].decode()
                png = resvg.svg_to_bytes(svg_string=svg, **options)
            except ValueError as error:
                raise LimnerError(f"{archive.name}: {entry['hexcode']}.svg cannot be drawn: {error}") from None
            out[i] = np.asarray(Image.open(io.BytesIO(bytes(png)), formats=("PNG",)).convert(mode))
    codes, groups = ([str(e[k]) for e in both] for k in ("hexcode", "group"))
    return {"codes": np.array(codes), "groups": np.array(groups), "colour": colour, "black": black}


def _annotated(arrays: Arrays, archive: Path, codes: list[str]) -> Arrays:
    """The same images with OpenMoji's annotations: three attributes, and the English name as a caption."""
    import numpy as np

    files = dict(_members(archive, ("data/openmoji.json",)))
    keys = ("hexcode", "group", "subgroups", "annotation")
    entries = {e["hexcode"]: e for e in _entries(archive, files.get("data/openmoji.json"), keys)}
    listed = [entries[code] for code in codes]
    columns = {
        "group": [e["group"] for e in listed],
        "subgroup": [e["subgroups"] for e in listed],
        "skin_tone": [_tone(str(e.get("skintone", ""))) for e in listed],
    }
    order = {"skin_tone": [*_TONES, _SEVERAL]}
    values = {name: [v for v in order.get(name, sorted(set(of))) if v in of] for name, of in columns.items()}
    features = [[values[name].index(v) for v in of] for name, of in columns.items()]
    return replace(
        arrays,
        labels=np.array(features, dtype=np.int64).T.copy(),
        classes=None,
        attributes=values,
        texts=[[e["annotation"]] for e in listed],
    )


def _tone(text: str) -> str:
    """The name of a skin tone of OpenMoji's list: empty, 1 to 5, or several of them such as "1,3"."""
    return _TONES[int(text or 0)] if text in ("", "1", "2", "3", "4", "5") else _SEVERAL


# --- Twemoji and Noto ------------------------------------------------------------------------------


def _both_styles(twitter: Path, google: Path) -> _Emoji:
    """The emoji that both packages have, on white."""
    note = "Twemoji, CC BY 4.0; Noto Emoji, Apache-2.0"
    return _cached("emoji", f"{_checksum(twitter)}-{_checksum(google)}", note, lambda: _decode(twitter, google))


def _decode(twitter: Path, google: Path) -> dict[str, Any]:
    """Code points, groups and images of each emoji that both packages have."""
    import numpy as np

    from limner.data.files import decode

    packages = {
        style: dict(_members(archive, (f"img/{style}/64/", "emoji.json")))
        for style, archive in (("twitter", twitter), ("google", google))
    }
    groups: dict[str, str] = {}
    for entry in _entries(twitter, packages["twitter"].get("emoji.json"), ("image", "category")):
        for variant in (entry, *(entry.get("skin_variations") or {}).values()):
            groups[variant["image"]] = entry["category"]
    names = [n for n in sorted(groups) if all(f"img/{s}/64/{n}" in files for s, files in packages.items())]
    if not names:
        raise LimnerError(f"{twitter.name} and {google.name} have no pictures of the same name; fetch them again")
    images = {style: np.empty((len(names), 64, 64, 3), dtype=np.uint8) for style in packages}
    with decode.strict():
        for style, files in packages.items():
            for i, name in enumerate(names):
                try:
                    image = decode.picture(io.BytesIO(files[f"img/{style}/64/{name}"]))
                except Exception as error:  # a damaged file may raise anything
                    raise LimnerError(f"emoji: {style}'s {name} is unusable: {decode.reason(error)}") from None
                images[style][i] = np.asarray(decode.channelled(decode.fitted(image, (64, 64)), 3))
    codes = [name.removesuffix(".png") for name in names]
    return {"codes": np.array(codes), "groups": np.array([groups[n] for n in names]), **images}


# --- packages and cache ----------------------------------------------------------------------------


def _members(archive: Path, prefixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files of an npm package whose paths have one of the prefixes.

    Raises:
        LimnerError: the package is damaged.
    """
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = member.name.removeprefix("package/")
                if name.startswith(prefixes) and member.isfile() and member.size <= _MOST_BYTES:
                    stream = tar.extractfile(member)
                    if stream is not None:
                        yield name, stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LimnerError(f"{archive.name} is damaged ({error}); delete it and fetch it again") from None


def _entries(archive: Path, raw: bytes | None, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Parses the list of emoji of a package.

    Raises:
        LimnerError: there is no list, or an entry lacks one of the keys.
    """
    try:
        entries = json.loads(raw or b"")
        if all(isinstance(entry[key], str) for entry in entries for key in keys):
            return entries
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise LimnerError(f"{archive.name} has no list of its emoji; delete it and fetch it again")


def _checksum(archive: Path) -> str:
    with archive.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _cached(name: str, key: str, note: str, make: Callable[[], dict[str, Any]]) -> _Emoji:
    """Reads images from the cache, or makes them and writes them there."""
    arrays = download.computed(name, key, make)
    return _Emoji(arrays.pop("codes").tolist(), arrays.pop("groups").tolist(), arrays, note)
