"""Runs go on reading their folders as they began: the recipe records how."""

from __future__ import annotations

import re
from pathlib import Path

import limner
from limner.config import recipe
from limner.core.run import Run
from limner.data.files.reading import LATEST

QUICK = {"batch": 8, "images": 16, "size": 8, "log_images": 16, "checkpoint_images": 16, "samples": 2}


def test_a_run_records_its_reading_and_one_of_before_keeps_the_first(tmp_path: Path) -> None:
    new = recipe.load("cvae-mnist", {"data": f"{tmp_path}/photos/"})
    assert "reading" not in new.data.kwargs
    assert recipe.record(new)["data"]["reading"] == LATEST
    assert recipe.of_run(recipe.record(new)).data.get("reading") == LATEST
    assert recipe.of_run(new.to_dict()).data.get("reading") == 1
    assert recipe.of_run(new.to_dict(), {"images": 7}).train.get("images") == 7
    named = recipe.load("cvae-mnist")
    assert recipe.record(named) == named.to_dict() == recipe.of_run(named.to_dict()).to_dict()


def test_a_run_of_before_resumes_with_its_order_of_classes(tmp_path: Path) -> None:
    from PIL import Image

    for k in (0, 1, 2, 10):
        for i in range(4):
            file = tmp_path / f"photos/{k}/{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * k + i).save(file)
    old = limner.train(
        "cvae-mnist", data=str(tmp_path / "photos"), out=tmp_path / "old", **QUICK, **{"data.reading": 1}
    )
    file = old.path / "recipe.yaml"
    text = file.read_text(encoding="utf-8")
    before = re.sub(r"(, |\n +)reading: 1", "", text)
    assert before != text
    file.write_text(before, encoding="utf-8")
    resumed = limner.resume(old.path, images=32)
    assert limner.load(resumed.path).condition.names == ["0", "1", "10", "2"]
    assert not [e for e in Run(old.path).events() if "the data have changed" in str(e.get("message"))]
