"""What a set leaves out of a folder or ZIP, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from limner.core.paths import shown
from limner.data.files.formats import UNREAD
from limner.data.files.layout import BESIDE_CLASSES
from limner.data.files.splits import BESIDE_SPLITS
from limner.data.steps import by_reason, listed

_SHOWN = 3


def unread_pictures(
    ignored: Counter[str] | dict[str, int], examples: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """A sentence for each kind of picture that is not read, with what to do.

    Args:
        ignored: numbers of files by suffix.
        examples: paths of some of them, which are then named.

    >>> unread_pictures({".jp2": 2, ".txt": 5})
    ['left out 2 pictures of a format that is not read (.jp2 2, JPEG 2000: convert it to PNG)']
    """
    kinds: dict[str, list[tuple[str, int]]] = {}
    for suffix, n in ignored.items():
        if suffix in UNREAD:
            kinds.setdefault(UNREAD[suffix], []).append((suffix, n))
    sentences = []
    for remedy, found in kinds.items():
        names = [name for suffix, _ in found for name in (examples or {}).get(suffix, ())][:_SHOWN]
        such_as = f", such as {', '.join(map(shown, names))}" if names else ""
        n = sum(n for _, n in found)
        sentences.append(
            f"left out {n} pictures of a format that is not read ({listed(found, most=_SHOWN)}, {remedy}){such_as}"
        )
    return sentences


def other_files(
    ignored: Counter[str] | dict[str, int],
    hidden: Iterable[str],
    examples: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Sentences on the files of a folder or ZIP that are no images; `examples` as in `unread_pictures`."""
    others = Counter({suffix: n for suffix, n in ignored.items() if suffix not in UNREAD})
    notes = unread_pictures(ignored, examples)
    if others:
        notes.append(f"ignored {others.total()} other files ({listed(others.most_common(), most=_SHOWN)})")
    names = sorted(hidden)
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        notes.append(f"passed over hidden files and files of the system ({', '.join(names[:_SHOWN])}{more})")
    return notes


def bad_files(quarantine: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence on the files that cannot be used; those that lie beside splits and classes have one already."""
    bad = [(path, reason) for path, reason in quarantine if reason not in (BESIDE_SPLITS, BESIDE_CLASSES)]
    return [f"left out {len(bad)} bad files: {by_reason(bad)}"] if bad else []
