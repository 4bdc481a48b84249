"""Damages the files of a run folder, as a bad disk or a stranger would, and drives every reader of run folders over it.

A small run is trained once. Then one file of a copy is changed at a random place: a bit is flipped, the file is cut
short, emptied, deleted or made a folder, a byte becomes no UTF-8, a value in JSON or YAML becomes one of another type,
size or depth, a key is repeated, renamed or dropped, a tensor gets another shape, type or value. Where a manifest holds
the hash of the file, it is signed again, so that the damage comes through to the parsers. Each reader must then succeed
or raise a `LimnerError` of one line; anything else is a traceback that a user would see.

    python benchmarks/damage.py                  1,000 damaged runs
    python benchmarks/damage.py --times 50 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save

import limner
from limner import report
from limner.bench import _trainings, compare
from limner.bench.shrink import shrunk
from limner.cli import verbs
from limner.config import recipe as recipes
from limner.core.checkpoint import LATEST, MANIFEST, MODEL, STATE, TRAINER, folders
from limner.core.errors import LimnerError
from limner.core.progress import Silent
from limner.core.run import Run
from limner.evaluation import scoring
from limner.evaluation.cost import training_cost
from limner.evaluation.subjects import load_subjects

PLAIN = ("metrics.jsonl", "events.jsonl", "scores.json", "env.json", "recipe.yaml", "figures/captions.json")
PLAIN += ("data/places.json", "quarantine.json")
SAVED = (MODEL, TRAINER, STATE, MANIFEST)
FILES = (*PLAIN, *SAVED, LATEST, "samples", "data/reals.png", "budget.json")
SLOW = 20  # CPU seconds after which a reader hangs

_TOKEN = "\x00here\x00"
_RAW = ("[" * 100_000, "[" * 200 + "]" * 200, "1" * 400, "NaN", "-Infinity", "1e400", '"\\ud800"', '"\\u0000"', "0x10")
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 2**31, 10**15, -(10**9), 1e308, "", "x", "12", "../..", "é" * 10_000),
    *([], {}, [[]], [None], [1] * 1000, {"name": "x"}, {"$tensor": "x"}, [{"$tensor": 3}], {"value": {}}, {"": ""}),
)


class Outcome(NamedTuple):
    """What a reader made of a damaged run: nothing special, a refusal of one line, a traceback, or a hang."""

    damage: str
    reader: str
    kind: str
    text: str = ""


# ---- damage ----------------------------------------------------------------------------------------------------------


def damage(run: Path, name: str, random_: random.Random) -> str:
    """Changes one file of a run folder; says how."""
    place = folders(run / "checkpoints")[-1]
    file = place / name if name in SAVED else run / "checkpoints" / name if name == LATEST else run / name
    if file.is_dir():
        file = random_.choice(sorted(file.iterdir()))
    suffix = file.suffix.removeprefix(".")
    ways: list[Callable[[Path, random.Random], str]] = [_bytes]
    if suffix in ("json", "jsonl", "yaml") or name == MANIFEST:
        ways += [_value] * 3
    elif suffix == "safetensors":
        ways += [_header, _tensor, _tensor]
    how = random_.choice(ways)(file, random_)
    if name in (MODEL, TRAINER, STATE) and random_.random() < 0.9:
        _sign(place)
        how += ", signed"
    return f"{name}: {how}"


def _bytes(file: Path, random_: random.Random) -> str:
    content = bytearray(file.read_bytes())
    place = random_.randrange(len(content))
    match random_.randrange(8):
        case 0 | 1:
            content[place] ^= 1 << random_.randrange(8)
            how = f"a bit of byte {place}"
        case 2:
            content[place] = 0xFF
            how = f"byte {place} no UTF-8"
        case 3:
            content = content[:place]
            how = f"cut at {place}"
        case 4:
            content = bytearray()
            how = "emptied"
        case 5:
            content[place:place] = bytes(random_.randrange(1, 64))
            how = f"zeros at {place}"
        case 6:
            content = content * 2
            how = "twice"
        case _:
            file.unlink()
            if random_.random() < 0.5:
                file.mkdir()
                return "a folder"
            return "deleted"
    file.write_bytes(content)
    return how


def _value(file: Path, random_: random.Random) -> str:
    """Changes a value or a key of JSON, of a line of JSON, or of YAML."""
    text = file.read_text(encoding="utf-8")
    lines, number = text.splitlines() if file.suffix == ".jsonl" else [text], 0
    if file.suffix == ".jsonl":
        number = random_.randrange(len(lines))
    tree = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(lines[number])
    lines[number], how = _changed(tree, random_)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"line {number + 1}, {how}" if len(lines) > 1 else how


def _changed(tree: Any, random_: random.Random) -> tuple[str, str]:
    """JSON of a tree with one change, and the change in words."""
    paths = list(_paths(tree))
    path = random_.choice(sorted(paths, key=len)[: 1 + len(paths) // 2] if random_.random() < 0.5 else paths)
    if not path:
        return random_.choice([*_RAW, *map(json.dumps, _VALUES)]), "all of it"
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    where, key = ".".join(map(str, path)), path[-1]
    match random_.randrange(6):
        case 0:
            del parent[key]
            return json.dumps(tree), f"{where} dropped"
        case 1 if isinstance(parent, dict):
            parent["x" + str(key)] = parent.pop(key)
            return json.dumps(tree), f"{where} renamed"
        case 2 if isinstance(parent, dict):
            parent[_TOKEN] = 0
            raw = f"{json.dumps(key)}: {json.dumps(random_.choice(_VALUES))}"
            return json.dumps(tree).replace(f"{json.dumps(_TOKEN)}: 0", raw), f"{where} repeated"
        case 3:
            raw = random_.choice(_RAW)
            parent[key] = _TOKEN
            return json.dumps(tree).replace(json.dumps(_TOKEN), raw), f"{where} = {raw[:20]}"
        case _:
            parent[key] = random_.choice(_VALUES)
            return json.dumps(tree), f"{where} = {str(parent[key])[:20]!r}"


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _paths(value, (*path, key))


def _header(file: Path, random_: random.Random) -> str:
    """Changes the header of a safetensors file, in it the description of the model."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if "__metadata__" in header and random_.random() < 0.7:
        header["__metadata__"]["spec"], how = _changed(json.loads(header["__metadata__"]["spec"]), random_)
        text = json.dumps(header)
    else:
        text, how = _changed(header, random_)
    raw = text.encode("utf-8", "surrogatepass")
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])
    return f"header, {how}"


def _tensor(file: Path, random_: random.Random) -> str:
    """Changes a tensor."""
    with safe_open(file, "pt") as opened:
        metadata, tensors = opened.metadata(), {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
    name = random_.choice(sorted(tensors))
    t = tensors[name]
    changes: dict[str, Callable[[], torch.Tensor]] = {
        "NaN": lambda: torch.full(t.shape, float("nan")),
        "negative": lambda: torch.full(t.shape, -1.0, dtype=torch.float32).to(t.dtype),
        "huge": lambda: torch.full(t.shape, 1e38),
        "float64": lambda: t.double(),
        "int8": lambda: t.to(torch.int8),
        "bool": lambda: t.bool(),
        "complex": lambda: t.to(torch.complex64),
        "longer": lambda: torch.cat([t.flatten(), t.flatten()]),
        "flat": lambda: t.flatten()[None],
        "empty": lambda: t.flatten()[:0],
        "transposed": lambda: t.mT.contiguous() if t.dim() > 1 else t.reshape(1, -1),
    }
    how = random_.choice([*changes, "dropped", "renamed"])
    if how in changes:
        tensors[name] = changes[how]()
    else:
        tensors.pop(name)
        if how == "renamed":
            tensors["x" + name] = t
    file.write_bytes(save(tensors, metadata))
    return f"{name} {how}"


def _sign(place: Path) -> None:
    """Writes the sizes and hashes of the files, as they are, to the manifest."""
    contents = {n: (place / n).read_bytes() for n in (MODEL, TRAINER, STATE) if (place / n).is_file()}
    facts = {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in contents.items()}
    (place / MANIFEST).write_text(json.dumps({"format": 1, "files": facts}), encoding="utf-8")


# ---- readers ---------------------------------------------------------------------------------------------------------


def _properties(path: Path) -> None:
    run = Run(path)
    run.metrics(), run.events(), run.recipe, run.samples(), run.frames(), run.ended(10**9)


def _files(path: Path) -> None:
    Run(path).check()


def _latest(path: Path) -> None:
    limner.load(Run(path).latest)


def _best(path: Path) -> None:
    limner.load(Run(path).best)


def _sample(path: Path) -> None:
    limner.sample(path, 2)


def _cost(path: Path) -> None:
    training_cost(Run(path))


def _pages(path: Path) -> None:
    report.film(path)
    report.write_card(path)
    report.write(path)


def _subject(path: Path) -> None:
    load_subjects([path], None, "latest", 10, "cpu", lambda train: 64)


def _scores(path: Path) -> None:
    scoring._write_scores(Run(path), {}, ())


def _same_settings(path: Path) -> None:
    _trainings.check_same_settings(path, recipes.load(Run(path).recipe))


def _budget(path: Path) -> None:
    compare._check_budget(path, compare.Budget(10, None))


def _result(path: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        verbs._run_result(Run(path))


QUICK: tuple[Callable[[Path], None], ...] = (
    *(_properties, _files, _latest, _best, _sample, _cost, _pages, _subject, _scores, _same_settings, _budget, _result),
)


def resumed(path: Path) -> None:
    """Trains a copy of the run for two more steps."""
    shutil.copytree(path, path.with_name("resumed"))
    try:
        limner.resume(path.with_name("resumed"), images=96, progress=Silent())
    finally:
        shutil.rmtree(path.with_name("resumed"))


def outcome(what: str, reader: Callable[[Path], None], path: Path) -> Outcome:
    """What one reader makes of a damaged run."""
    name, began = reader.__name__.strip("_"), time.process_time()
    try:
        reader(path)
        kind, text = "read", ""
    except LimnerError as error:
        kind, text = ("refused" if "\n" not in str(error) else "lines"), str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind, text = (
            "traceback",
            f"{type(error).__name__}: {str(error)[:80]} ({Path(last.filename).name}:{last.lineno})",
        )
    if time.process_time() - began > SLOW:
        kind = "hang"
    return Outcome(what, name, kind, text)


def trained(folder: Path) -> Path:
    """A finished run of two checkpoints with all files that a run can have."""
    recipe = shrunk("ae-mnist", images=80, batch=8, checkpoint_images=40, log_images=24, sample_images=40)
    run = limner.train(recipe.to_dict(), out=folder / "run")
    shutil.copyfile(run.checkpoints / LATEST, run.checkpoints / "best")
    (run.path / "figures").mkdir(exist_ok=True)
    run.write_json("figures/captions.json", {"before-after": "A caption."})
    run.write_json("data/places.json", {"path": [""]})
    run.write_json("quarantine.json", [["b/broken.jpg", "cut off"]])
    run.write_json("budget.json", {"images": 5, "seconds": None})
    return run.path


def trials(run: Path, times: int, seed: int, readers: tuple[Callable[[Path], None], ...]) -> Iterator[Outcome]:
    """The outcomes of all readers over so many damaged copies of a run; the files take turns."""
    random_ = random.Random(seed)
    for i in range(times):
        broken = run.with_name("broken")
        shutil.copytree(run, broken)
        what = damage(broken, FILES[i % len(FILES)], random_)
        with warnings.catch_warnings(action="ignore"):
            yield from [outcome(what, reader, broken) for reader in readers]
        shutil.rmtree(broken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = list(trials(run, options.times, options.seed, (*QUICK, resumed)))
        grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    kinds = Counter(o.kind for o in found)
    wrong = [o for o in found if o.kind not in ("read", "refused")]
    print(f"{options.times} damaged runs, {len(found)} readings: {dict(kinds)}; memory grew by {grew // 1024} MiB")
    for text, n in Counter(f"{o.reader}, {o.kind}: {o.text}" for o in wrong).most_common():
        print(f"    {n} {text}; such as {next(o.damage for o in wrong if text.endswith(o.text))}")
    if options.json:
        options.json.write_text(json.dumps({"readings": len(found), **kinds}, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
