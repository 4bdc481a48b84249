"""The examples of CONTRIBUTING.md and of the architecture page, run in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "explanation" / "architecture.md")
BLOCK = re.compile(r"^```(?:python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"(Append to )?`((?:src|tests)/[\w/.-]+)`")


HEAD = """
from pathlib import Path

import pytest
import torch

import limner
import limner.data
from limner.core.errors import LimnerError

QUICK = {"data.limit": 64, "data.size": 16, "images": 64, "batch": 8, "samples": 4, "device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
"""


def laid_out(root: Path) -> list[str]:
    """A copy of the package with all examples in it; the tests that stand beside them, by file."""
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    tests, found = [HEAD], []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            code, before = block[1], text[: block.start()].rstrip().rpartition("\n")[2]
            if place := PLACE.match(before):
                file = root / place[2]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text((f"{file.read_text()}\n\n" if place[1] else "") + code)
                found.append(place[2])
            elif code.startswith("# a test"):
                body = "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
                tests.append(f"def test_{len(tests)}():\n{body}")
    (root / "tests" / "test_page.py").write_text("\n\n".join(tests))
    return found


def test_every_example_works(tmp_path: Path) -> None:
    found = laid_out(tmp_path)
    assert len(found) >= 10
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b7 passed", done.stdout), done.stdout[-500:]
