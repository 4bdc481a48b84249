"""How long a training of very many files takes to start, and what reading them costs its steps.

python benchmarks/scale.py million n=1M                     makes a folder of a million JPEGs of 64 px, and measures:
                                                             the first and the second start, `limner data prepare`, and
                                                             steps on files, on the prepared store and in memory

A start is the time from the start of the process to the first batch: imports, data, model, held-out part, fingerprint.
Each start is a process of its own; its memory is what the operating system counts (the largest resident set).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLASSES = 100
_BLOCK = 5  # steps of one kind before those of the next


def make(folder: Path, n: int) -> None:
    """A folder of `n` JPEGs in classes: one picture, whose files differ behind their end."""
    import numpy as np
    from PIL import Image

    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=75)
    content = stream.getvalue()
    for k in range(CLASSES):
        inner = folder / f"class{k}"
        inner.mkdir(parents=True, exist_ok=True)
        for i in range(k, n, CLASSES):
            (inner / f"{i:07}.jpg").write_bytes(content + i.to_bytes(8, "big"))


def prepared(data: Path, recipe: str, **more: Any) -> Any:
    """Everything that a training needs before its first step."""
    from limner import api
    from limner.config import recipe as recipes

    settings = {"data": str(data), "data.size": 64, "device": "cpu", **more}
    return api.prepare(recipes.load(recipe, settings))


def start(data: Path, recipe: str) -> dict[str, Any]:
    """One start, in this process."""
    from limner.core.stream import Stream

    ready = prepared(data, recipe)
    fingerprint = ready.dataset.fingerprint
    next(Stream(ready.dataset, ready.options.batch))
    held_out = 0 if ready.heldout is None else len(ready.heldout)
    return {"images": len(ready.dataset), "held_out": held_out, "fingerprint": fingerprint}


def measured_start(data: Path, recipe: str) -> dict[str, Any]:
    """One start, in a process of its own: its seconds, processor seconds and memory."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, str(data), f"recipe={recipe}", "--start"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result | {"seconds": round(seconds, 2), "processor": round(cpu, 2)}


def steps(sources: dict[str, tuple[Path, dict[str, Any]]], recipe: str, count: int) -> dict[str, float]:
    """Median milliseconds of a step on each source; the sources take turns, so that a busy machine slows all alike."""
    from limner.core.stream import Stream
    from limner.core.update import Updates

    runs: dict[str, tuple[Any, Any, Any]] = {}
    for name, (data, more) in sources.items():
        ready = prepared(data, recipe, **more)
        stream = Stream(ready.dataset, ready.options.batch, channels_last=ready.options.channels_last)
        ready.model.train()
        runs[name] = ready.model, Updates(ready.model.groups(), ready.optimisers), stream
    times: dict[str, list[float]] = {name: [] for name in runs}
    for block in range(count // _BLOCK + 1):
        for name, (model, update, stream) in runs.items():
            for _ in range(_BLOCK):
                began = time.perf_counter()
                stream.begin()
                update.begin(stream.position, 1 << 40)
                model.step(stream, update)
                if block:
                    times[name].append(1000 * (time.perf_counter() - began))
    return {name: round(statistics.median(t), 2) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", nargs="*", help="n=1M recipe=dcgan-64 steps=40")
    parser.add_argument("--start", action="store_true", help="one start in this process")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    settings = {"n": "100k", "recipe": "dcgan-64", "steps": "40"} | dict(s.split("=", 1) for s in options.settings)
    if options.start:
        result = start(options.folder, settings["recipe"])
        result["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(result))
        return
    print(json.dumps(figures(options.folder, settings), indent=1))


def figures(folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    """All measurements of a folder, which is made where it is absent."""
    from limner import data
    from limner.core.units import count

    n, recipe = int(count(settings["n"])), settings["recipe"]
    os.environ["LIMNER_CACHE"] = str(folder.with_name(f"{folder.name}-cache"))
    if not folder.exists():
        make(folder, n)
        time.sleep(3)  # files that were written just now are looked at again
    result: dict[str, Any] = {"files": n, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for name in ("first start", "second start", "third start"):
        result[name] = measured_start(folder, recipe)
        print(name, result[name], file=sys.stderr)
    store, began = folder.with_name(f"{folder.name}.limner"), time.perf_counter()
    if not store.exists():
        data.prepare(folder, store, size=64)
        result["prepare"] = round(time.perf_counter() - began, 1)
    result["start on the prepared store"] = measured_start(store, recipe)
    sources: dict[str, tuple[Path, dict[str, Any]]] = {
        "in memory": (folder, {"data.limit": min(n, 20_000), "data.cache": True}),
        "prepared": (store, {"data.cache": False}),
        "files": (folder, {"data.cache": False}),
    }
    result["milliseconds of a step"] = steps(sources, recipe, int(settings["steps"]))
    shutil.rmtree(os.environ["LIMNER_CACHE"], ignore_errors=True)
    return result


if __name__ == "__main__":
    main()
