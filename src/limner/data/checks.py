"""Finds faults in a folder or ZIP of images before a training.

The check decodes every file completely. It counts each bad file and lists it with the reason, and continues.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.core.errors import LimnerError
from limner.core.paths import named, shown
from limner.data.files import decode, limits
from limner.data.files.distributions import distribution, never_together
from limner.data.files.formats import UNREAD
from limner.data.files.layout import Layout, layout_of
from limner.data.files.left_out import other_files, unread_pictures
from limner.data.files.pair_layout import domain_paths, match_names
from limner.data.files.store import Store, open_store
from limner.data.files.threads import in_threads
from limner.data.registry import SOURCES, USER_FILES
from limner.data.steps import by_reason, listed

TINY = 16
"""Images whose shorter side has fewer pixels than this are reported as too small."""

_FEW, _FEW_PER_CLASS, _UNBALANCED = 500, 20, 10
_NEAR_BITS, _NEAR_LEVELS, _LARGEST_GROUP = 3, 6.0, 200
_SHOWN, _ATTRIBUTES = 5, 50
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass
class Report:
    """The result of `check`.

    Args:
        name: the name of the folder or ZIP, without its parent folders.
        images: number of images that can be used.
        layout: sentences on classes and splits.
        classes: number of images of each class, or None.
        attributes: for each attribute the number of images of each value, "" where it is not known; or None.
        captions: number of captions, of different ones, and of images that have one; or None.
        never_together: pairs of values of attributes that no image has, and how many images would have them if the
            attributes were independent, at least 5.
        formats: number of images of each file format.
        modes: number of images of each pixel format (Pillow's names).
        sizes: number of images of each HEIGHTxWIDTH when upright, most frequent first.
        bad: (path, reason) of each file that cannot be used.
        left_out: (path, reason) of each usable image that belongs to no split or class.
        ignored: number of other files, by suffix.
        examples: paths of some of them, by suffix.
        hidden: names of hidden files and folders and of those of the system, which are passed over.
        rotated: images that EXIF turns or mirrors.
        alpha: images with transparency.
        animated: files with more than one frame.
        tiny: images with a shorter side below 16 pixels.
        duplicates: groups of images with the same pixels.
        near_duplicates: pairs of images that are almost the same at 16×16.
        table_faults: what is wrong with tables of attributes and captions.
        findings: sentences on what to mend, and how.
    """

    name: str
    images: int = 0
    layout: list[str] = field(default_factory=list)
    classes: dict[str, int] | None = None
    attributes: dict[str, dict[str, int]] | None = None
    captions: dict[str, int] | None = None
    never_together: list[tuple[str, str, float]] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    alpha: list[str] = field(default_factory=list)
    animated: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    table_faults: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; characters of file names that are not valid text become "?"."""
        plain: dict[str, Any] = _printable(asdict(self))
        return {"ok": self.ok, **plain}

    def text(self) -> str:
        """The report as text."""
        lines = [f"{self.name}: {self.images} images"]
        lines += [f"  {note}" for note in self.layout]
        lines += [f"  {note}" for note in self._attributes()]
        for title, counts in (("formats", self.formats), ("modes", self.modes), ("sizes", self.sizes)):
            if counts:
                lines.append(f"  {title}: {listed(counts.items())}")
        lines += [f"  {note}" for note in self._other_files()]
        lines += ["", "nothing to put right"] if self.ok else ["", *(f"- {f}" for f in self.findings)]
        for path, reason in self.bad[:_SHOWN]:
            lines.append(f"    {shown(path)}: {reason}")
        if len(self.bad) > _SHOWN:
            lines.append(f"    and {len(self.bad) - _SHOWN} more bad files (--json lists all)")
        return str(_printable("\n".join(lines)))

    __str__ = text

    def _attributes(self) -> list[str]:
        """A line for each attribute."""
        counts = {a: listed((v or "not known", n) for v, n in of.items()) for a, of in (self.attributes or {}).items()}
        lines = [f"{attribute}: {values}" for attribute, values in counts.items()]
        more = [f"and {len(lines) - _ATTRIBUTES} more attributes (--json lists all)"][: len(lines) > _ATTRIBUTES]
        return lines[:_ATTRIBUTES] + more

    def _other_files(self) -> list[str]:
        """Sentences on files that are no images, with some of their names; pictures of unread formats are findings."""
        plain = {suffix: n for suffix, n in self.ignored.items() if suffix not in UNREAD}
        names = [name for suffix in plain for name in self.examples.get(suffix, [])]
        such_as = f", such as {', '.join(map(shown, names[:_SHOWN]))}" if names else ""
        return [f"{note}{such_as if note.startswith('ignored') else ''}" for note in other_files(plain, self.hidden)]


@dataclass(frozen=True)
class _Looks:
    """What an image looks like: a digest of its pixels, 64 bits and a small copy."""

    sha256: str
    bits: int
    thumb: NDArray[np.int16]


@dataclass(frozen=True)
class _Result(_Looks):
    header: decode.Header


def check(path: str | os.PathLike[str]) -> Report:
    """Examines a folder or a ZIP of images, or a named set.

    Args:
        path: the folder or ZIP, or the name of a set.

    Raises:
        LimnerError: there is no folder or ZIP at `path`, nor a set of that name, or it cannot be read at all.
    """
    name = named(path, [name for name in SOURCES if name not in USER_FILES], "data set")
    return _check_set(name) if name is not None else _check_files(path)


def _check_set(name: str) -> Report:
    """What is in a named set. Its images are numbered in the order of `split: all`.

    Raises:
        LimnerError: the set has points instead of images.
    """
    if "points" in SOURCES[name].gives:
        raise LimnerError(
            f"{name} has points, of which nothing can be wrong; look at them: limner train toy-gan data={name}"
        )
    whole, test = SOURCES[name](split="all"), SOURCES[name](split="test")
    channels, height, width = whole.shape
    report = Report(name, images=len(whole), layout=[*whole.notes, f"{len(test)} of them are held out"])
    report.sizes = {f"{height}x{width}": len(whole)}
    report.modes = {_MODES.get(channels, f"{channels} channels"): len(whole)}
    every = np.ones(len(whole), dtype=bool)
    layout = Layout(
        every, every, classes=whole.classes, attributes=whole.attributes, texts=getattr(whole, "texts", None)
    )
    if whole.condition is not None and whole.labels is not None:
        features = whole.condition.features(whole.labels).numpy()
        layout.labels = features if layout.classes is None else features[:, 0]
    _describe_labels(report, layout)
    if report.classes is not None:
        report.layout.append(f"classes: {listed(report.classes.items())}")
    if whole.pixels is not None:
        groups: defaultdict[bytes, list[str]] = defaultdict(list)
        for i, x in enumerate(whole.pixels.numpy()):
            groups[hashlib.sha256(x.tobytes()).digest()].append(f"#{i}")
        report.duplicates = [numbers for numbers in groups.values() if len(numbers) > 1]
    report.findings = list(_findings(report))
    return report


def _check_files(path: str | os.PathLike[str]) -> Report:
    store = open_store(path)
    report = Report(store.title, bad=list(store.quarantine), ignored=dict(store.ignored.most_common()))
    report.examples, report.hidden = store.examples, sorted(store.hidden)
    results: dict[str, _Result] = {}
    with decode.strict():
        for name, result in zip(store.names, in_threads(lambda n: _examine(store, n), store.names)):
            if isinstance(result, str):
                report.bad.append((name, result))
            else:
                results[name] = result
    report.images = len(results)
    if results:
        _describe(report, results)
        layout = layout_of(store, list(results))
        report.layout = [note for note in layout.notes if note not in layout.faults]
        report.table_faults = layout.faults
        _describe_labels(report, layout)
        report.left_out = [(list(results)[i], reason) for i, reason in layout.left_out.items()]
        report.layout += _as_pairs(list(results))
        report.duplicates = _duplicates(results)
        report.near_duplicates = list(_near_duplicates(results))
    report.findings = list(_findings(report))
    return report


def _examine(store: Store, name: str) -> _Result | str:
    try:
        with limits.share(), store.open(name) as stream:
            header = decode.header(stream)
            stream.seek(0)
            image = decode.picture(stream)
            return _Result(_digest(image), *_fingerprint(image), header)
    except Exception as error:  # a hostile file may raise anything, and must not stop the check
        return decode.reason(error)


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()


def _fingerprint(image: Image.Image) -> tuple[int, NDArray[np.int16]]:
    """64 bits (whether each of 8×8 cells is brighter than the one to its left) and the image at 16×16."""
    grey = decode.channelled(image, 1)
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes())
    return bits, np.asarray(grey.resize((16, 16), Image.Resampling.BOX), dtype=np.int16)


def _describe(report: Report, results: dict[str, _Result]) -> None:
    headers = {name: result.header for name, result in results.items()}
    report.formats = dict(Counter(h.format for h in headers.values()).most_common())
    report.modes = dict(Counter(h.mode for h in headers.values()).most_common())
    report.sizes = dict(Counter(f"{h.size[0]}x{h.size[1]}" for h in headers.values()).most_common())
    report.rotated = [n for n, h in headers.items() if h.rotated]
    report.alpha = [n for n, h in headers.items() if h.alpha]
    report.animated = [n for n, h in headers.items() if h.animated]
    report.tiny = [n for n, h in headers.items() if min(h.size) < TINY]


def _as_pairs(names: list[str]) -> list[str]:
    """A sentence on the pairs in A/ and B/, where there are no other folders."""
    paths = domain_paths(names)
    if paths is None or 10 * len(paths) < 9 * len(names):  # but for single pictures beside them
        return []
    pairs = match_names(paths)
    example = f" (such as {pairs.left_out[0][0]})" if pairs.left_out else ""
    return [f"as pairs: {len(pairs.names)} in A/ and B/, {len(pairs.left_out)} images without a partner{example}"]


def _describe_labels(report: Report, layout: Layout) -> None:
    """How many images there are of each class or value, and with captions."""
    used = layout.mask("all")
    if layout.labels is not None and layout.classes is not None:
        counts = np.bincount(layout.labels[layout.labels >= 0], minlength=len(layout.classes))
        report.classes = {name: int(n) for name, n in zip(layout.classes, counts)}
    if layout.labels is not None and layout.attributes:
        features = layout.labels[used]
        report.attributes = distribution(layout.attributes, features)
        report.never_together = never_together(layout.attributes, features)
    if layout.texts is not None:
        texts = [text for of, is_used in zip(layout.texts, used) if is_used for text in of]
        with_text = sum(bool(of) for of, is_used in zip(layout.texts, used) if is_used)
        report.captions = {"captions": len(texts), "different": len(set(texts)), "images": with_text}


def _duplicates(results: dict[str, _Result]) -> list[list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, result in results.items():
        groups[result.sha256].append(name)
    return [names for names in groups.values() if len(names) > 1]


def with_a_twin(images: Iterable[Image.Image]) -> int:
    """How many of some images look nearly the same as another one of them, and are not its exact copy."""
    looks = {str(i): _Looks(_digest(image), *_fingerprint(image)) for i, image in enumerate(images)}
    return len({name for pair in _near_duplicates(looks) for name in pair})


def _near_duplicates(results: Mapping[str, _Looks]) -> Iterator[tuple[str, str]]:
    """Pairs that differ in 0 to 3 of 64 bits and little at 16×16, but are not exact duplicates.

    Two numbers of 64 bits that differ in at most 3 bits have one of their four quarters in common, so only images with
    a common quarter are compared.
    """
    first = {results[name].sha256: name for name in reversed(list(results))}  # one of each group of duplicates
    groups: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for name in (n for n in results if first[results[n].sha256] == n):
        for quarter in range(4):
            groups[quarter, (results[name].bits >> 16 * quarter) & 0xFFFF].append(name)
    compared: set[tuple[str, str]] = set()
    for group in groups.values():
        if len(group) > _LARGEST_GROUP:  # images without contrast, whose bits are alike by chance
            continue
        for pair in combinations(group, 2):
            if pair not in compared:
                compared.add(pair)
                if _alike(results[pair[0]], results[pair[1]]):
                    yield pair


def _alike(a: _Looks, b: _Looks) -> bool:
    close = (a.bits ^ b.bits).bit_count() <= _NEAR_BITS
    return close and float(np.abs(a.thumb - b.thumb).mean()) <= _NEAR_LEVELS


def _findings(report: Report) -> Iterator[str]:
    if report.bad:
        yield f"{len(report.bad)} bad files are left out ({by_reason(report.bad)}): repair or remove them"
    yield from unread_pictures(report.ignored, report.examples)
    if report.images < 2:
        yield f"{report.images} usable images: a model needs at least 2, and hundreds to learn something"
        return
    if report.images < _FEW:
        yield f"only {report.images} images: expect the model to memorise them; add some, or set flip and shift"
    yield from _form_findings(report)
    yield from report.table_faults
    yield from _class_findings(report)
    yield from _attribute_findings(report)
    if report.duplicates:
        copies = sum(len(group) - 1 for group in report.duplicates)
        example = " = ".join(report.duplicates[0][:2])
        yield f"{copies} images repeat another one exactly (such as {example}): remove them, or they count double"
    if report.near_duplicates:
        example = " and ".join(report.near_duplicates[0])
        yield f"{len(report.near_duplicates)} pairs look nearly the same (such as {example}): keep one of each"


def _form_findings(report: Report) -> Iterator[str]:
    grey = sum(n for mode, n in report.modes.items() if mode in ("1", "L", "LA", "La") or mode.startswith("I;16"))
    if 0 < grey < report.images:
        yield f"{grey} of {report.images} images are grey, the others in colour: set channels to 1 or 3 to choose"
    if len(report.sizes) > 1:
        yield f"{len(report.sizes)} different sizes ({listed(report.sizes.items(), most=3)}): set size to choose one"
    if report.rotated:
        yield f"{len(report.rotated)} images are stored turned (such as {report.rotated[0]}): limner turns them upright"
    if report.alpha:
        yield f"{len(report.alpha)} images have transparency: laid over white, unless channels is 2 or 4"
    if report.animated:
        yield f"{len(report.animated)} files are animated: only their first frame is used"
    if report.tiny:
        yield f"{len(report.tiny)} images are smaller than {TINY} pixels (such as {report.tiny[0]}): remove them"


def _class_findings(report: Report) -> Iterator[str]:
    if not report.classes:
        return
    ordered = sorted(report.classes.items(), key=lambda item: item[1])
    (least, few), (most, many) = ordered[0], ordered[-1]
    if few < _FEW_PER_CLASS:
        small = [(name, n) for name, n in ordered if n < _FEW_PER_CLASS]
        examples = listed(small, most=3)
        yield f"{len(small)} classes have fewer than {_FEW_PER_CLASS} images ({examples}): add some, or leave them out"
    if many > _UNBALANCED * few:
        yield f"classes are unbalanced ({most} {many}, {least} {few}): expect poor images of the small ones"


def _attribute_findings(report: Report) -> Iterator[str]:
    counts = [(f"{a}={v}", n) for a, of in (report.attributes or {}).items() for v, n in of.items() if v]
    small = sorted([(name, n) for name, n in counts if n < _FEW_PER_CLASS], key=lambda item: item[1])
    if small:
        examples = listed(small, most=3)
        yield f"{len(small)} values have fewer than {_FEW_PER_CLASS} images ({examples}): add some, or leave them out"
    if report.never_together:
        a, b, expected = report.never_together[0]
        yield (
            f"{len(report.never_together)} pairs of values occur in no image (such as {a} with {b}, in "
            f"{expected:.0f} if they were independent): a model can only guess what such images look like"
        )


def _printable(value: Any) -> Any:
    """The same value, with file names as valid text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(k): _printable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(v) for v in value]
    return value
