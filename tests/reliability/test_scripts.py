"""Small runs of `benchmarks/kill.py` and `benchmarks/corrupt.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import limner
from limner.config import recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {recipe.load(name).model.name: name for name in limner.list_recipes()}  # one of each model
OWN_STATE = (
    "adain", "caae", "consistency", "cyclegan", "gan", "glow", "progressive_gan", "style_transfer", "stylegan2",
    "unrolled_gan", "vae", "wgan_gp",
)  # fmt: skip
"""Models that between them have all kinds of state: frozen nets, pools, levels, phases, moving means, inner steps."""
PARTS = 2  # so that two test processes can share the work


def script(name: str, *arguments: object) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", *(str(a) for a in arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.parametrize(
    ("times", "models", "part"),
    [(1, OWN_STATE, part) for part in range(PARTS)]
    + [pytest.param(5, tuple(RECIPES), part, marks=pytest.mark.slow) for part in range(PARTS)],
)
def test_killed_runs_end_with_the_same_bits(times: int, models: tuple[str, ...], part: int) -> None:
    recipes = [RECIPES[model] for model in models[part::PARTS]]
    output = script("kill", "--times", times, "--recipes", *recipes)
    assert output.count(f"{times}/{times} bit-identical") == len(recipes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_damage_is_detected_and_the_previous_checkpoint_used() -> None:
    assert "20/20 detected" in script("corrupt", "--times", 20)
