"""How long ``limner --help`` takes, and that ``import limner`` does not import torch.

python benchmarks/startup.py             median of 20 starts with warm file caches
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HELP = 0.3  # seconds, the promise
HEAVY = ("torch", "numpy", "PIL", "matplotlib", "sklearn", "pydantic")


def starts(command: list[str], times: int) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of a command, again and again."""
    wall, cpu = [], []
    for _ in range(times):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return wall, cpu


def imported(statement: str) -> list[str]:
    """Which heavy packages a statement imports."""
    code = f"import sys; {statement}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8")
    return run.stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    command = [sys.executable, "-m", "limner", "--help"]
    starts(command, 2)
    wall, cpu = starts(command, options.times)
    bare, _ = starts([sys.executable, "-c", ""], options.times)
    heavy = {s: imported(s) for s in ("import limner", "import limner.cli.verbs")}
    median = statistics.median(wall)
    print(
        f"limner --help: {median:.3f} s (median of {options.times}; {min(wall):.3f} to {max(wall):.3f}; "
        f"processor {statistics.median(cpu):.3f}; python alone {statistics.median(bare):.3f}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    )
    for statement, names in heavy.items():
        print(f"{statement}: of {', '.join(HEAVY)} it imports {', '.join(names) or 'none'}")
    if options.json:
        options.json.write_text(
            json.dumps({"seconds": wall, "processor": cpu, "python": bare, "imports": heavy}, indent=1),
            encoding="utf-8",
        )
    sys.exit(median > HELP or "torch" in heavy["import limner"])


if __name__ == "__main__":
    main()
