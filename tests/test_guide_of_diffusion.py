"""Every command and every line of Python of the guide to diffusion models, with small nets and few images."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner import api
from limner.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "diffusion.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = (
    *("images=32", "batch=8", "samples=4", "sample_images=32", "device=cpu", "threads=1"),
    *("data.size=16", "data.limit=160", "F.width=8"),
)
FEWER = {"n=100": "n=10", "n=1000": "n=72", "steps=100": "steps=3", "steps=50": "steps=3", "steps=1,5,20": "steps=1,2"}


def commands() -> list[tuple[str, str]]:
    """(language, text) of each command and each block of Python, in order."""
    found = []
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            found.append((language, text))
        else:
            found += [(language, line[2:]) for line in text.splitlines() if line.startswith("$ ")]
    return found


def words_of(line: str) -> list[str]:
    """The words of a command after ``limner``, made small."""
    words = [FEWER.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    if words[0] == "train":
        words = [w for w in words if w.partition("=")[0] not in ("size", "F.width")] + [*SMALL]
    return words


@pytest.mark.slow
def test_every_command_of_the_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "_DRY_RUN", 1.0)
    rng = np.random.default_rng(0)
    for folder in ("photos", "classes/cat", "classes/dog"):
        Path(folder).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(Path(folder) / f"{i}.png")
    found = commands()
    assert len(found) >= 20
    for language, text in found:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), {})  # noqa: S102 - the page is our own
            continue
        words = words_of(text)
        monkeypatch.setattr(sys, "argv", ["limner", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert not ended.value.code, f"{text}: {told.err}"
        if words[0] == "sample" and "--help" not in words:
            assert Path(words[2]).is_file()
        if "--schema" in words:
            assert json.loads(told.out)["$defs"]["sampling"]["properties"]["guidance"]["maximum"] == 100
