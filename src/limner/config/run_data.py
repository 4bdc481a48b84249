"""Where the files of a run's data are, also from another folder, and after they have moved.

A recipe keeps a path as its user wrote it, and a relative one means something from one folder only. So a run writes
down where such files lie as seen from itself, in ``data/places.json``. No absolute path is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limner.config.catalogue import names
from limner.config.spec import Spec, arguments
from limner.core.errors import LimnerError
from limner.core.paths import BUILTIN, exists, path_text, user_path
from limner.core.run import Run

_SETS = ("path", "a", "b")
_FILES = (*_SETS, "style", "masks", "first")
_FILE = "data/places.json"


def remember(run: Run, data: Spec) -> None:
    """Writes down where the files of relative paths lie, as seen from the run folder."""
    places = {key: [_seen_from(run.path, text) for text in _texts(data, key)] for key in _FILES if _texts(data, key)}
    if any(any(paths) for paths in places.values()):
        (run.path / _FILE).parent.mkdir(exist_ok=True)
        run.write_json(_FILE, places)


def located(run: Run, data: Spec, verb: str) -> Spec:
    """The data of a run, with paths that are right from here.

    Args:
        run: the run.
        data: the data of its recipe.
        verb: the verb that asks, for the message.

    Raises:
        LimnerError: the data are no longer there; the message says how to name their new place.
    """
    places, kwargs = run.read_json(_FILE) or {}, dict(data.kwargs)
    for key in _FILES:
        texts, seen = _texts(data, key), places.get(key, [])
        for k, place in enumerate(seen[: len(texts)]):
            if place and exists(run.path / place):
                texts[k] = _shown(run.path / place)
        if texts:
            kwargs[key] = texts if isinstance(kwargs[key], list) else texts[0]
        missing = next((t for t in texts if key in _SETS and not _is_name(data, key, t) and not exists(t)), None)
        if missing is not None:
            setting = "data" if key == "path" else f"data.{key}"
            raise LimnerError(
                f"the data of {run.name} are not at {missing!r}; put them back, or name their new place: "
                f"limner {verb} {run.path} {setting}=PLACE"
            )
    return Spec(data.kind, data.name, kwargs)


def split(overrides: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The new places of data ("path", "a" or "b" -> place) among a user's settings, and the other settings."""
    places: dict[str, str] = {}
    others: dict[str, Any] = {}
    for key, value in overrides.items():
        name = "path" if key == "data" else key.removeprefix("data.")
        if name in _SETS and isinstance(value, (str, Path)):
            places[name] = path_text(value) if isinstance(value, Path) else str(value)
        else:
            others[key] = value
    return places, others


def moved(run: Run, data: Spec, places: Mapping[str, str]) -> Spec:
    """The data of a run at other places.

    Raises:
        LimnerError: the run has data that cannot be there.
    """
    for key in places:
        if not _texts(data, key) or all(_is_name(data, key, text) for text in _texts(data, key)):
            own = [k for k in _SETS if _texts(data, k)]
            hint = f"write {' '.join(f'data.{k}=PLACE' for k in own)}" if len(own) > 1 else "leave it out"
            raise LimnerError(f"{run.name} was trained on {_title(data)}, which is not at one path; {hint}")
    return Spec(data.kind, data.name, data.kwargs | dict(places))


def refuse_others(run: Run, dataset: Any, place: str) -> None:
    """Refuses data that are not those that a run was trained on.

    Raises:
        LimnerError: the content differs.
    """
    start: dict[str, Any] = next((e for e in reversed(run.events()) if e.get("fingerprint")), {})
    if not start or start["fingerprint"] == dataset.fingerprint:
        return
    n, before = len(dataset), start.get("items")
    what = f"{n} images and not {before}" if before not in (None, n) else "other images, names or classes"
    raise LimnerError(
        f"{place} does not hold the data of {run.name}: it has {what}; name what it was trained on, or start a new run"
        " with limner train"
    )


def same_elsewhere(run: Run, data: Spec, place: object) -> Spec | None:
    """The data of a run at a place that a user names, if its content is the same; else None."""
    if not isinstance(place, (str, Path)) or "path" not in data.kwargs or not exists(place):
        return None
    try:
        spec = moved(run, data, {"path": path_text(place) if isinstance(place, Path) else str(place)})
        refuse_others(run, spec.build(), str(place))
    except LimnerError:
        return None
    return spec


def _texts(data: Spec, key: str) -> list[str]:
    """The paths or names of an argument."""
    value = data.kwargs.get(key)
    if key not in arguments("data", data.name) or value is None:
        return []
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else [str(value)]


def _is_name(data: Spec, key: str, text: str) -> bool:
    """Whether a text is a name of limner, such as that of a data set or of a photograph, and no path."""
    marker = arguments("data", data.name)[key].name_or_path
    return text.startswith(BUILTIN) or text in (names("data") if marker is None else marker.names())


def _title(data: Spec) -> str:
    return data.name if not _texts(data, "path") else _texts(data, "path")[0]


def _seen_from(folder: Path, text: str) -> str:
    """A relative path as seen from a folder; "" for a name, for another path, and where it would lead over the root."""
    if text.startswith((BUILTIN, "~")) or not exists(text) or user_path(text).is_absolute():
        return ""
    start, end = folder.resolve(), user_path(text).resolve()
    try:
        shared = Path(os.path.commonpath([start, end]))
    except ValueError:  # on two drives
        return ""
    return "" if shared == Path(shared.anchor) else Path(os.path.relpath(end, start)).as_posix()


def _shown(path: Path) -> str:
    """A path from the working folder where that is possible."""
    try:
        return path_text(Path(os.path.relpath(path.resolve())))
    except ValueError:
        return str(path.resolve())
