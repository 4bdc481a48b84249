"""Kills trainings at random times by SIGKILL, and checks that the result is the same bit for bit.

For every recipe family: train a small version to the end once; then, again and again, start it, kill it with SIGKILL at
a uniformly random time (while it starts, steps, samples, saves or scores), and call ``limner resume``, which may be
killed as well, until it has finished. At the end every tensor of ``model.safetensors`` and ``trainer.safetensors`` must
have the same bits as after the uninterrupted training, the metric lines must be the same but for seconds and rates, and
the grids of samples must be the same files. The run must keep the checkpoints that the uninterrupted one keeps, and no
temporary file.

    python benchmarks/kill.py                          100 runs of every shipped recipe
    python benchmarks/kill.py --times 5 --recipes vae-mnist gan-mnist

Every life is a real process that runs the real command line. It is forked from a parent that has imported limner and
done nothing else, which saves the seconds that importing torch takes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch._dynamo  # what torch imports for the first optimiser
from shrink import pictures, words

import limner
from limner import api
from limner.cli import progress, verbs
from limner.core.checkpoint import MODEL, TRAINER, folders, safetensors

LOADED = (api, progress, verbs, torch._dynamo)  # imported before the first fork, so that no life has to
CLOCKS = ("seconds", "images_per_second")
LIVES = 40  # a run that needs more of them does not come forward


def live(arguments: Sequence[object], log: Path, kill_after: float | None = None) -> tuple[int, float]:
    """Runs ``limner ARGUMENTS`` in a process of its own; returns its exit code (minus the signal) and its seconds."""
    sys.stdout.flush()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be([str(a) for a in arguments], log)
    if kill_after is not None:
        _wait(pid, kill_after)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, time.monotonic() - began


def _wait(pid: int, seconds: float) -> None:
    """Kills a child after so many seconds, if it still lives then."""
    gone = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    if gone is None:
        time.sleep(seconds)
    else:
        import select

        select.select([gone], [], [], seconds)
        os.close(gone)
    os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own


def _be(arguments: list[str], log: Path) -> None:
    """What a child does; it never returns."""
    from limner.cli import main

    code = 70
    try:
        with log.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["limner", *arguments]
        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def differences(run: Path, whole: Path) -> list[str]:
    """What is not the same in two finished run folders."""
    found = []
    ends = [folders(p / "checkpoints")[-1] for p in (run, whole)]
    if ends[0].name != ends[1].name:
        return [f"ended at {ends[0].name} instead of {ends[1].name}"]
    for name in (MODEL, TRAINER):
        mine, theirs = (safetensors((end / name).read_bytes(), name) for end in ends)
        if mine[1] != theirs[1] or mine[0].keys() != theirs[0].keys():
            found.append(f"{name}: header")
        found += [f"{name}: {k}" for k, t in theirs[0].items() if _bits(t) != _bits(mine[0].get(k))]
    kept = [[p.name for p in folders(run_ / "checkpoints")] for run_ in (run, whole)]
    if kept[0] != kept[1]:
        found.append(f"checkpoints {', '.join(kept[0])} instead of {', '.join(kept[1])}")
    found += [f"left behind: {p.name}" for p in run.rglob(".*")]
    lines = [[_timeless(line) for line in limner.Run(p).metrics()] for p in (run, whole)]
    if lines[0] != lines[1]:
        found.append(f"metrics.jsonl: {len(lines[0])} lines, {len(lines[1])} expected")
    grids = [{n: f.read_bytes() for n, f in limner.Run(p).samples()} for p in (run, whole)]
    if grids[0] != grids[1]:
        found.append("samples")
    return found


def _bits(tensor: Any) -> tuple[Any, ...] | None:
    return None if tensor is None else (tensor.dtype, tensor.shape, tensor.numpy().tobytes())


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if k not in CLOCKS}


class Family:
    """One recipe, its uninterrupted training, and how killed ones compare."""

    def __init__(self, recipe: str, folder: Path, data: Path) -> None:
        self.recipe, self.folder, self.log = recipe, folder / recipe, folder / f"{recipe}.log"
        self.folder.mkdir()
        self.start = ["train", recipe, *words(recipe, data)]
        self.whole = self.folder / "whole"
        code, self.seconds = live([*self.start, f"out={self.whole}"], self.log)
        if code:
            sys.exit(f"{recipe} does not train: {self.log.read_text(encoding='utf-8')[-500:]}")
        self.seen: Counter[str] = Counter()

    def trial(self, random_: random.Random) -> list[str]:
        """Kills one run at least once, then perhaps again; what is different at its end."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        command, kills = [*self.start, f"out={run}"], 0
        for _ in range(LIVES):
            # the first time within the time that it needs, then less and less often
            code, seconds = live(command, self.log, random_.uniform(0, (1 + kills) * self.seconds))
            if code == 0 and not kills:  # quicker than the first time: measure again, and try again
                self.seconds = min(self.seconds, seconds)
                shutil.rmtree(run)
                continue
            if code == -signal.SIGKILL:
                kills += 1
                self.seen["kills"] += 1
                self.seen["saving"] += any(run.glob("checkpoints/.*.tmp"))
                command = self.next(run)
                continue
            if code and not _finished(run):
                return [f"exit code {code}: {self.log.read_text(encoding='utf-8')[-300:]}"]
            self.seen["refused"] += code != 0  # resume says that there is nothing left to do
            return differences(run, self.whole)
        return [f"not finished after {LIVES} lives"]

    def next(self, run: Path) -> list[str]:
        """How a user goes on: resume, or start again in the same folder where there is no recipe yet."""
        for leftover in run.glob("checkpoints/.*.tmp"):  # so that the next kill counts as its own
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.seen["unsaved"] += not folders(run / "checkpoints")
        return ["resume", str(run)] if (run / "recipe.yaml").is_file() else [*self.start, f"out={run}"]


def _finished(run: Path) -> bool:
    """Whether the last checkpoint is the one at the end of the recipe."""
    saved = folders(run / "checkpoints")
    return bool(saved) and int(saved[-1].name) >= limner.Run(run).recipe["train"]["images"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=100, help="runs per family, each killed at least once")
    parser.add_argument("--recipes", nargs="+", default=["all"])
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    recipes = limner.list_recipes() if options.recipes == ["all"] else options.recipes
    results, failed = {}, False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = pictures(folder / "pictures")
        for recipe in recipes:
            began = time.monotonic()
            family, random_ = Family(recipe, folder, data), random.Random(f"{options.seed} {recipe}")
            found = [family.trial(random_) for _ in range(options.times)]
            same, seen = sum(not f for f in found), family.seen
            results[recipe] = {"same": same, "of": options.times, **seen}
            print(
                f"{recipe:<22} {same}/{options.times} bit-identical; "
                f"{seen['kills']} kills, {seen['saving']} inside a save, "
                f"{seen['unsaved']} before the first; {time.monotonic() - began:.0f} s",
                flush=True,
            )
            for f in [f for f in found if f][:3]:
                print("   ", "; ".join(f[:4]))
            failed |= same < options.times
            shutil.rmtree(family.folder)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
