"""The kit for a GPU works where there is none, and one part that fails does not end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KIT = ROOT / "benchmarks" / "gpu.py"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not KIT.exists(), reason="not a checkout")]


def kit(tmp_path: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    found = tmp_path / "found.json"
    command = [sys.executable, str(KIT), "--device", "cpu", "--json", str(found), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    return done, json.loads(found.read_text())


def test_it_checks_recipes_and_measures_nets(tmp_path: Path) -> None:
    done, found = kit(tmp_path, "--minutes", "1", "--only", "vae-mnist", "VAE 28")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["facts"]["torch"]
    assert found["facts"]["seed"] == 0
    recipe, *speeds = found["pieces"]
    assert recipe["found"]["agreement"]["apart"] == 0, "the CPU agrees with itself"
    assert recipe["found"]["twenty"]["same_bits"]
    rates = {p["how"]: p["found"]["rate"] for p in speeds if p["found"].get("ok")}
    assert {"fp32 plain", "fp32 eager", "bf16 eager"} <= set(rates)
    assert "1 of 1 recipes right" in done.stdout


def test_a_part_that_dies_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "sitecustomize.py"  # the first process to do this recipe ends at once, as after a fatal fault
    broken.write_text(
        "import os, sys\n"
        "if sys.argv and 'gpu_work' in ' '.join(sys.orig_argv):\n"
        "    import limner.bench.shrink as s\n"
        "    kept = s.shrunk\n"
        "    s.shrunk = lambda name, **more: os._exit(9) if name == 'gan-mnist' else kept(name, **more)\n"
    )
    found = tmp_path / "found.json"
    command = [sys.executable, str(KIT), "--device", "cpu", "--json", str(found), "--minutes", "1"]
    command += ["--only", "gan-mnist", "vae-mnist"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    pieces = {p["name"]: p["found"] for p in json.loads(found.read_text())["pieces"]}
    assert done.returncode == 1
    assert "the process died" in pieces["gan-mnist"]["error"]
    assert pieces["vae-mnist"]["ok"]
