"""Where results go. It is decided, checked and said before any work; then each file appears whole or not at all.

A result is named after its picture. No result takes the place of another one, of a file that is there already (unless
asked with `overwrite`), or of a file that is read (never).
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import get_ident
from typing import Any

from PIL import Image, features

from limner.apply.metadata import NONE, Metadata
from limner.apply.transparency import has_alpha, over_white
from limner.core.durable import is_litter, temporary_name
from limner.core.errors import LimnerError
from limner.core.paths import shown, user_path

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", {"quality": 95, "subsampling": 0})),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".bmp": ("BMP", {}),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF", {})),
    ".avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
}
_WITHOUT_ALPHA = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".bmp"))
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO)
_REMEDY = "choose another out, or write overwrite=true to replace"


class CannotWrite(LimnerError):
    """A folder or a disk takes no more files, so that there is no use in going on."""


def writable(suffix: str) -> bool:
    """Whether pictures of this suffix can be written."""
    return suffix.lower() in _FORMATS and (suffix.lower() != ".avif" or bool(features.check("avif")))


def keeps_alpha(suffix: str) -> bool:
    """Whether pictures of this suffix can be transparent."""
    return suffix.lower() not in _WITHOUT_ALPHA


def over_white_note(path: Path) -> str:
    """What is said where a result with alpha goes into a format without."""
    return f"transparency is laid over white, as {path.suffix} has none"


def is_folder(out: str | Path) -> bool:
    """Whether `out` is written as a folder, or is one: a/, a folder that exists, or a name without a suffix."""
    return str(out).endswith(("/", os.sep)) or user_path(out).is_dir() or not user_path(out).suffix


def check_file(out: str | Path) -> Path:
    """The path of a single picture.

    Raises:
        LimnerError: pictures of its suffix cannot be written.
    """
    path = user_path(out)
    if not writable(path.suffix):
        raise LimnerError(
            f"{path.name} is no name for a picture: use one that ends in .png, .jpg, .webp, .tif or .bmp; "
            f"write {path.name}/ for a folder"
        )
    return path


def refuse_existing(paths: Iterable[Path], overwrite: bool, read: Iterable[Path] = ()) -> None:
    """Refuses to replace files.

    Args:
        paths: what will be written.
        overwrite: whether earlier results may be replaced.
        read: files that are read, which are never replaced.

    Raises:
        LimnerError: one of the paths exists and must not be replaced.
    """
    there = [p for p in paths if os.path.lexists(p)]
    if not there:
        return
    folders = [p for p in there if p.is_dir()]
    if folders:
        raise LimnerError(f"{folders[0]} is a folder; choose another out")
    sources = {key for p in read if (key := _identity(p))}
    for path in there:
        if _identity(path) in sources:
            raise LimnerError(f"{path} is read, and a result would overwrite it; choose another out")
    if not overwrite:
        if len(there) == 1:
            raise LimnerError(f"{there[0]} exists already; {_REMEDY} it")
        raise LimnerError(f"{len(there)} results exist already, such as {there[0]}; {_REMEDY} them")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@dataclass
class Plan:
    """The path of the result of each picture.

    Attributes:
        paths: by the name of the picture.
        notes: sentences for the user about results that are named unlike their pictures.
    """

    paths: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def plan(out: str | Path, suffixes: dict[str, str], *, single: bool) -> Plan:
    """Names the result of every picture.

    Args:
        out: a folder; or for a single picture the name of a file.
        suffixes: the suffix of the result of each picture, by the picture's name relative to the source.
        single: whether the source is one picture.

    Raises:
        LimnerError: `out` is a file and there are several pictures, or no picture can be written under that name.
    """
    folder = user_path(out)
    if single and not is_folder(out):
        return Plan({name: check_file(out) for name in suffixes})
    if folder.is_file() or (not single and not is_folder(out) and writable(folder.suffix)):
        raise LimnerError(f"{folder} is the name of a file, and many pictures go into a folder; write out=FOLDER")
    names = _distinct(suffixes)
    suffix_of = {name: posixpath.splitext(name)[1].lower() for name in names}
    changed = Counter(s or "(no suffix)" for name, s in suffix_of.items() if s != suffixes[name].lower())
    notes = [f"written as PNG: {', '.join(f'{n} {suffix}' for suffix, n in changed.most_common())}"] if changed else []
    renamed = [(old, new) for old, new in names.items() if new != _inside(old, suffixes[old])]
    notes += [f"{old} is written as {new}, as another result has its name" for old, new in renamed[:8]]
    if len(renamed) > 8:
        notes.append(f"and {len(renamed) - 8} more have another name than their picture")
    return Plan({old: folder / new for old, new in names.items()}, notes)


def _inside(name: str, suffix: str) -> str:
    """The name of a result inside the folder."""
    return posixpath.splitext(name)[0] + suffix


def _distinct(suffixes: dict[str, str]) -> dict[str, str]:
    """A name for each result; no two are the same, also where capital letters or the form of accents do not count.

    >>> _distinct({"a.gif": ".png", "a.png": ".png", "A.jpg": ".jpg"})
    {'a.gif': 'a.gif.png', 'a.png': 'a.png', 'A.jpg': 'A.jpg'}
    """
    holding = {name.rpartition("/")[0] for name in suffixes}
    taken = {
        _key(str(place)) for folder in holding for place in (PurePosixPath(folder), *PurePosixPath(folder).parents)
    }
    chosen: dict[str, str] = {}
    for name in sorted(suffixes, key=lambda n: _inside(n, suffixes[n]) != n):  # those that keep their name come first
        base, suffix = _inside(name, ""), suffixes[name]
        candidate, number = base + suffix, 1
        while _key(candidate) in taken:
            candidate = name + suffix if number == 1 and candidate != name + suffix else f"{base}-{number}{suffix}"
            number += 1
        taken.add(_key(candidate))
        chosen[name] = candidate
    return {name: chosen[name] for name in suffixes}


def _key(name: str) -> str:
    name = posixpath.normpath(name)
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def numbered(path: Path) -> Path:
    """The path, or where it exists the next one that does not: a.png, a-2.png, a-3.png."""
    result, number = path, 2
    while os.path.lexists(result):
        result, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return result


def write(image: Image.Image, path: Path, metadata: Metadata = NONE) -> Path:
    """Writes an image of mode L, LA, RGB or RGBA in the format of the suffix; formats without alpha get it over white.

    JPEG has quality 95 and colours at full resolution, AVIF the same (100 with alpha, which is then exact), WebP is
    lossless.

    Raises:
        CannotWrite: no image can be written there.
        LimnerError: this image cannot be written.
    """
    form, options = _FORMATS[path.suffix.lower()]
    content = io.BytesIO()
    try:
        picture = image if keeps_alpha(path.suffix) else over_white(image)
        if form == "AVIF" and has_alpha(picture):
            options = options | {"quality": 100}  # the least at which alpha is exact
        picture.save(content, form, **options, **metadata.options(form))
        return write_whole(path, content.getvalue())
    except (ValueError, OSError) as error:
        kind = CannotWrite if isinstance(error, OSError) and error.errno in _LASTING else LimnerError
        raise kind(f"cannot write {path.name}: {getattr(error, 'strerror', None) or error}") from None


def write_whole(path: Path, content: bytes) -> Path:
    """Writes a file through a temporary one beside it, so that no part of a file is ever left under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.with_name(f"limner-{get_ident()}"))  # short, whatever the name of the file
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def sweep(paths: Iterable[Path]) -> None:
    """Deletes what killed processes left half written beside these files."""
    for folder in {path.parent for path in paths}:
        for path in folder.glob(".limner-*.tmp"):
            if is_litter(path):
                path.unlink(missing_ok=True)


def left_out(skipped: Sequence[tuple[str, str]], notes: Sequence[str], most: int = 8) -> list[str]:
    """Lines for the user: the pictures that were left out with the reasons, and notes."""
    lines = []
    if skipped:
        named = ", ".join(f"{shown(name)} ({reason})" for name, reason in skipped[:most])
        more = f", and {len(skipped) - most} more (json=true lists them all)" if len(skipped) > most else ""
        lines.append(f"{len(skipped)} left out: {named}{more}")
    return [*lines, *notes]
