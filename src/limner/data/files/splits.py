"""Which folders are the parts to train on, to validate on and to test on.

The names are those by which Hugging Face's `datasets` finds splits, in any case, also with a year or a word behind them
(``train2017``, ``Training_Set``). They mean splits only beside others: a folder ``train/`` among the classes ``bus/``
and ``car/`` is a class. A word in front and a short number behind (``seg_train``, ``test1``) count only where there are
both a part to train on and another one of the same word.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from limner.data.steps import listed

TRAIN, VALID, TEST = "train", "valid", "test"
WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALID,
    "valid": VALID,
    "validation": VALID,
    "dev": VALID,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
}
_SPLIT = re.compile(rf"({'|'.join(WORDS)})(?:[-_ ]?(?:\d{{4}}|set|data|split|images|imgs))?", re.IGNORECASE)
_LOOSE = re.compile(rf"(?:(.*)[-_ .])?({'|'.join(WORDS)})[-_ ]?(?:\d{{1,4}}|set|data)?", re.IGNORECASE)
_NO_CLASS = re.compile(
    r"(un|non)?label+(ed|s)?|mask(s|ed)?|annotations?|ground[-_ ]?truth|gt|extra|other|query|gallery|hold[-_ ]?out"
    r"|pred(ict(ions?|ed)?)?|submissions?|results?|out(put)?|samples?|generated|fake|real|images?|imgs?|a|b",
    re.IGNORECASE,
)

BESIDE_SPLITS = "in none of the folders to train or test on"


@lru_cache(maxsize=4096)
def split_of(folder: str) -> str | None:
    """The split that the name of a folder says: "train", "valid" or "test"; or None.

    >>> split_of("Training"), split_of("val2017"), split_of("cats")
    ('train', 'valid', None)
    """
    match = _SPLIT.fullmatch(folder)
    return WORDS[match[1].lower()] if match else None


def unwrapped(names: Sequence[str]) -> list[str]:
    """The paths without the folders that all of them share, as in a ZIP of one folder; a folder train/ stays.

    >>> unwrapped(["photos/a/1.png", "photos/b/2.png"])
    ['a/1.png', 'b/2.png']
    """
    names = list(names)
    while names and "/" in names[0]:
        top = names[0].split("/", 1)[0]
        if split_of(top) == TRAIN or not all(n.startswith(top + "/") for n in names):
            break
        names = [n[len(top) + 1 :] for n in names]
    return names


@dataclass
class Splits:
    """The split of each path.

    Args:
        of: for each path "train", "valid" or "test"; "" where there are no splits, or it is in none of them.
        inner: the paths without the folder of the split.
        found: whether there are splits.
        folders: for each split the names of its folders.
        left_out: index and reason of each path that is in none of the splits.
        notes: messages for the user.
    """

    of: list[str]
    inner: list[str]
    found: bool = False
    folders: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mask(self, split: str) -> NDArray[np.bool_]:
        """(N,) bool, True for the paths of a split."""
        return np.array([s == split for s in self.of], dtype=bool)


def find_splits(names: Sequence[str]) -> Splits:
    """Finds splits in paths: in the first folder (``train/cats/1.png``) or in the second (``cats/train/1.png``).

    Args:
        names: paths, of which `unwrapped` has removed what all share.
    """
    tops: Counter[str] = Counter(first_folders(names))
    tops.pop("", None)
    if tops.total() < len(names) and len(tops) == 1:  # one folder, and pictures beside it
        indices = [i for i, n in enumerate(names) if "/" in n]
        below = find_splits(unwrapped([names[i] for i in indices]))
        return _spread(below, indices, names) if below.found else Splits([""] * len(names), list(names))
    roles = _roles(tops)
    if _are_splits(roles, names):
        return _by(0, names, roles)
    if len(tops) > 1 and _are_nested(names):
        return _by(1, names, {})
    result = Splits([""] * len(names), list(names))
    example = next((top for top in tops if split_of(top) == TRAIN), None)
    if example:
        result.notes.append(f"{example}/ lies among {len(tops)} folders without a test folder: taken as a class")
    return result


def first_folders(names: Sequence[str]) -> list[str]:
    """The first folder of each path; "" where it is in none."""
    return [name[:end] if (end := name.find("/")) >= 0 else "" for name in names]


def _roles(tops: Iterable[str]) -> dict[str, str | None]:
    """The split of each folder at the top, or None.

    >>> _roles(["seg_train", "seg_test", "seg_pred"]), _roles(["bullet-train", "crash-test"])
    ({'seg_train': 'train', 'seg_test': 'test', 'seg_pred': None}, {'bullet-train': None, 'crash-test': None})
    """
    roles = {top: split_of(top) for top in tops}
    loose = {top: (_word(m), WORDS[m[2].lower()]) for top in roles if (m := _LOOSE.fullmatch(top))}
    of_word: defaultdict[str, set[str]] = defaultdict(set)
    for word, split in loose.values():
        of_word[word].add(split)
    for top, (word, split) in loose.items():
        if TRAIN in of_word[word] and len(of_word[word]) > 1:
            roles[top] = split
    return roles


def _word(match: re.Match[str]) -> str:
    """The word in front of a split: "seg" of ``seg_train``."""
    return (match[1] or "").casefold()


def _are_splits(roles: dict[str, str | None], names: Sequence[str]) -> bool:
    """Whether the folders at the top are splits, and not classes of which one is called train."""
    named = {role for role in roles.values() if role}
    others = [top for top, role in roles.items() if role is None]
    if TRAIN not in named:
        return len(named) > 1 and not others
    if len(named) > 1 or len(others) < 2 or any(_NO_CLASS.fullmatch(o) or _LOOSE.fullmatch(o) for o in others):
        return True
    return any(n.count("/") > 1 for n in names)


def _are_nested(names: Sequence[str]) -> bool:
    """Whether a folder has both a part to train on and another one: cats/train/1.png and cats/test/2.png."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for n in names:
        parts = n.split("/", 2)
        if len(parts) == 3 and (split := split_of(parts[1])):
            found[parts[0]].add(split)
    return any(TRAIN in splits and len(splits) > 1 for splits in found.values())


def _by(level: int, names: Sequence[str], roles: dict[str, str | None]) -> Splits:
    """Splits by the folders at one level; where several words are in front of them, those are folders of their own."""
    words = {top: _word(m) for top, split in roles.items() if split and (m := _LOOSE.fullmatch(top))}
    several = len(set(words.values())) > 1
    result = Splits([""] * len(names), list(names), found=True)
    outside: Counter[str] = Counter()
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for i, name in enumerate(names):
        *above, rest = name.split("/", level + 1)
        folder = above[level] if len(above) > level else ""
        split = roles.get(folder, split_of(folder))
        if split is None:
            result.left_out[i] = BESIDE_SPLITS
            outside[f"{above[0]}/" if above else name] += 1
            continue
        folders[split].add(folder)
        kept = [words[folder]] if several and words.get(folder) else above[:level]
        result.of[i], result.inner[i] = split, "/".join([*kept, rest])
    result.folders = {split: sorted(found) for split, found in folders.items()}
    for split in result.folders if level == 0 else ():
        _drop_repeated(result, split, roles)
    if outside:
        where = listed(outside.most_common(), most=3)
        result.notes.append(f"left out {outside.total()} files that lie beside these folders ({where})")
    return result


def _drop_repeated(result: Splits, split: str, roles: dict[str, str | None]) -> None:
    """Removes a folder of the split that all its paths have once more: training_set/training_set/cats/1.png."""
    members = [i for i, s in enumerate(result.of) if s == split]
    if all(
        roles.get(folder, split_of(folder)) == split for folder in first_folders([result.inner[i] for i in members])
    ):
        for i in members:
            result.inner[i] = result.inner[i].split("/", 1)[1]


def _spread(below: Splits, indices: list[int], names: Sequence[str]) -> Splits:
    """Splits of all paths from those of some; the others are left out."""
    result = Splits([""] * len(names), list(names), True, below.folders, notes=below.notes)
    for k, i in enumerate(indices):
        result.of[i], result.inner[i] = below.of[k], below.inner[k]
        if k in below.left_out:
            result.left_out[i] = below.left_out[k]
    alone = sorted(set(range(len(names))) - set(indices))
    result.left_out |= dict.fromkeys(alone, BESIDE_SPLITS)
    result.notes.append(f"left out {len(alone)} files that lie beside these folders (such as {names[alone[0]]})")
    return result
