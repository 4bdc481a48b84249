"""Flips a bit or truncates a file at random positions of a checkpoint, and checks that the fault is detected.

Trains a shrunken recipe once, then damages one file of its newest checkpoint (``model.safetensors``,
``trainer.safetensors``, ``state.json`` or ``MANIFEST.json``) or the pointer ``latest``, over and over. Each time
``limner resume`` must name the damaged checkpoint aloud, go on from the one before, and end with the very bits of the
undamaged training. Where only the pointer is damaged, the newest checkpoint must still be found.

    python benchmarks/corrupt.py                 200 places
    python benchmarks/corrupt.py --times 20 --recipe gan-mnist
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from kill import Family, differences, live
from shrink import BATCH, IMAGES, pictures

import limner
from limner.core.checkpoint import LATEST, MANIFEST, MODEL, STATE, TRAINER, folders
from limner.core.run import Run

FILES = (MODEL, TRAINER, STATE, MANIFEST, LATEST)


def damage(file: Path, random_: random.Random) -> str:
    """Flips one bit of a file or cuts it short, at a uniformly random place; says which."""
    content = bytearray(file.read_bytes())
    place = random_.randrange(len(content))
    if random_.random() < 0.5:
        bit = random_.randrange(8)
        content[place] ^= 1 << bit
        file.write_bytes(content)
        return f"{file.name}: bit {bit} of byte {place} of {len(content)}"
    file.write_bytes(content[:place])
    return f"{file.name}: cut to {place} of {len(content)} bytes"


def shorter(family: Family, run: Path) -> None:
    """A run that ended a few steps after its last but one checkpoint, so that there is something left to do."""
    code, _ = live([*family.start, f"out={run}", f"train.images={IMAGES - 2 * BATCH}"], family.log)
    if code:
        sys.exit(f"{family.recipe} does not train: {family.log.read_text(encoding='utf-8')[-500:]}")


def trial(family: Family, run: Path, random_: random.Random) -> str:
    """Damages a copy of a run and resumes it; what went wrong, or nothing."""
    broken, output = run.with_name("broken"), run.with_name("said")
    shutil.rmtree(broken, ignore_errors=True)
    output.unlink(missing_ok=True)
    shutil.copytree(run, broken)
    saved = folders(broken / "checkpoints")
    name = random_.choice(FILES)
    what = damage(saved[-1].parent / name if name == LATEST else saved[-1] / name, random_)
    if name == LATEST and Run(broken).latest != saved[-1]:
        return f"{what}: Run.latest gives {Run(broken).latest.name} instead of {saved[-1].name}"
    code, _ = live(["resume", broken, f"train.images={IMAGES}"], output)
    text = output.read_text(encoding="utf-8")
    if code:
        return f"{what}: exit code {code}, {text.strip().splitlines()[-1]}"
    used = next(e["images"] for e in Run(broken).events() if e["event"] == "resume")
    if name == LATEST:
        return "" if used == int(saved[-1].name) else f"{what}: went on from {used}"
    if f"checkpoint {saved[-1].name}" not in text or f"going on from {saved[-2].name}" not in text:
        return f"{what}: no message"
    differs = differences(broken, family.whole)
    return f"{what}: {'; '.join(differs[:3])}" if differs or used != int(saved[-2].name) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--recipe", default="vae-mnist", choices=limner.list_recipes())
    parser.add_argument("--seed", type=int, default=0, help="of the places")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        family = Family(options.recipe, folder, pictures(folder / "pictures"))
        run = folder / "run"
        shorter(family, run)
        found = [trial(family, run, random_) for _ in range(options.times)]
    wrong = [f for f in found if f]
    print(
        f"{options.recipe}: {len(found) - len(wrong)}/{len(found)} detected, the right checkpoint used, with a message"
    )
    for file, n in Counter(f.partition(":")[0] for f in wrong).items():
        print(f"    {n} of {file}, such as {next(f for f in wrong if f.startswith(file))}")
    if options.json:
        options.json.write_text(
            json.dumps({"noticed": len(found) - len(wrong), "of": len(found), "wrong": wrong}, indent=1),
            encoding="utf-8",
        )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
