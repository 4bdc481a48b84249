"""Vectors of captions, each of which is computed once and kept in the user's cache.

Importing this module makes the encoder known to conditions (`limner.core.condition.ENCODERS`), so that a model can be
asked by a caption. Texts in the cache need no encoder.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from limner.core.condition import ENCODERS
from limner.data.files.download import cache_folder
from limner.data.texts import minilm

_AT_ONCE = 500  # texts that are computed before they are written: an interruption loses no more


def encode(texts: Sequence[str]) -> Tensor:
    """Vectors (N,384) float32 of texts, by `minilm`: from the cache, or computed and written there.

    They have the length √384, so that their entries are about as large as those of noise, beside which nets take them.

    Raises:
        LimnerError: a text is not in the cache and the extra ``text`` is not installed.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    with closing(_cache()) as cache:
        known = _read(cache, keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for k in range(0, len(new), _AT_ONCE):
            part = list(new)[k : k + _AT_ONCE]
            rows = minilm.encode([new[key] for key in part]).numpy()
            known |= dict(zip(part, rows, strict=True))
            _write(cache, {key: known[key] for key in part})
    found = np.stack([known[key] for key in keys]) if keys else np.empty((0, minilm.SIZE), np.float32)
    return torch.from_numpy(found) * minilm.SIZE**0.5


def _cache() -> sqlite3.Connection:
    """The table of the encoder; one in memory where the user's cache cannot be used."""
    path = cache_folder("texts") / f"{minilm.ID}.sqlite"
    for place in (path, None):
        try:
            return _opened(place)
        except (OSError, sqlite3.Error):
            continue
    raise sqlite3.OperationalError("no table can be made in memory")


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    cache = sqlite3.connect(path or ":memory:", timeout=30)
    try:
        cache.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
    except sqlite3.Error:
        cache.close()
        raise
    return cache


def _read(cache: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
    """The vectors (384,) that the cache has."""
    found = {}
    try:
        for key in dict.fromkeys(keys):
            row = cache.execute("SELECT vector FROM vectors WHERE text = ?", (key,)).fetchone()
            if row is not None and isinstance(row[0], bytes) and len(row[0]) == 4 * minilm.SIZE:
                found[key] = np.frombuffer(row[0], "<f4").astype(np.float32)
    except sqlite3.Error:  # a damaged file only costs time
        pass
    return found


def _write(cache: sqlite3.Connection, vectors: dict[bytes, np.ndarray]) -> None:
    rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
    try:
        with cache:
            cache.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
    except sqlite3.Error:  # so does a full disk
        pass


ENCODERS[minilm.ID] = encode
