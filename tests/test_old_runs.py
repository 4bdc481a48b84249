"""Runs, checkpoints and recipes of limner 0.1.0, made before the code was rearranged, go on as if nothing had happened.

`tests/fixtures/make_runs.py` says how they were made. Where this machine computes the same bits as the one that made
them (a canary says so) the picture of a seed and every tensor at the end must be equal to the bit, else close.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.config import recipe

FIXTURES = Path(__file__).parent / "fixtures"
ARCHIVE = FIXTURES / "runs-0.1.zip"
with zipfile.ZipFile(ARCHIVE) as packed:
    EXPECTED: dict[str, Any] = json.loads(packed.read("expected.json"))
RUNS = [name for name in EXPECTED if name not in ("torch", "canary")]
RECIPES: dict[str, Any] = json.loads((FIXTURES / "recipes-0.1.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ARCHIVE) as packed:
        packed.extractall(place)
    script = FIXTURES / "resume_runs.py"
    environment = os.environ | {"PYTHONPATH": str(FIXTURES.parents[1] / "src")}
    done = subprocess.run(
        [sys.executable, script], cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads((place / "found.json").read_text()))


def is_same_machine(found: dict[str, Any]) -> bool:
    """Whether this machine computes to the bit what the machine of the fixtures did.

    The canary misses some kernels, so most runs must agree too. A change of limner concerns a few models, another
    processor concerns most.
    """
    agree = [digests(found[name]) == digests(EXPECTED[name]) for name in RUNS]
    return (found["torch"], found["canary"]) == (EXPECTED["torch"], EXPECTED["canary"]) and 2 * sum(agree) > len(RUNS)


def digests(outcome: dict[str, Any]) -> list[Any]:
    """The picture of a run before it is resumed, and the digests of its weights at the end."""
    return [outcome.get("picture"), *(tensor["sha256"] for tensor in outcome.get("final", {}).values())]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_before_loads_samples_and_resumes(found: dict[str, Any], name: str) -> None:
    new, old = found[name], EXPECTED[name]
    assert "error" not in new, new.get("error")
    exact = is_same_machine(found)
    near = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(torch.tensor(new["picture"]), torch.tensor(old["picture"]), **near)
    assert new["final"].keys() == old["final"].keys()
    for key, tensor in old["final"].items():
        if exact:
            assert new["final"][key]["sha256"] == tensor["sha256"], key
        assert new["final"][key]["mean"] == pytest.approx(tensor["mean"], rel=1e-2, abs=1e-3), key
        assert new["final"][key]["size"] == pytest.approx(tensor["size"], rel=1e-2, abs=1e-3), key
    assert [line.keys() for line in new["metrics"]] == [line.keys() for line in old["metrics"]]
    if exact:
        assert new["metrics"] == old["metrics"]


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_of_before_means_what_it_meant(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text(RECIPES[name]["yaml"])
    assert recipe.load(file).to_dict() == RECIPES[name]["read"]
