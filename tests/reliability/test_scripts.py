"""The promises that `benchmarks/kill.py` and `benchmarks/corrupt.py` measure in full, in small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import limner
from limner.config import recipe as recipes

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [*{recipes.load(name).model.name: name for name in limner.list_recipes()}.values()]  # one of each model
PARTS = 3  # so that two test processes can share the work


def script(name: str, *arguments: object) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", *(str(a) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_runs_end_with_the_same_bits(part: int) -> None:
    some = RECIPES[part::PARTS]
    told = script("kill", "--times", 5, "--recipes", *some)
    assert told.count("5/5 bit-identical") == len(some)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.timeout(300)
def test_damage_is_noticed_and_the_previous_checkpoint_used() -> None:
    assert "20/20 noticed" in script("corrupt", "--times", 20)
