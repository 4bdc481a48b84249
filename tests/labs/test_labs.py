"""Every lab runs through on a tiny budget, agrees with the lecture's numbers, and leaves a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from limner import labs
from limner.core.errors import LimnerError
from limner.core.run import Run

DATA = {"name": "digits", "size": 28, "limit": 400}  # few, and the set that loads fastest
CHECKS = {"ae": 9, "conv-ae": 11, "vae": 3, "gan": 7, "dcgan": 7}
RUNS = {"ae": 6, "conv-ae": 14, "vae": 4, "gan": 2, "dcgan": 1}


@pytest.mark.parametrize("name", CHECKS)
def test_a_lab_runs_through_and_agrees_with_the_lecture(name: str, tmp_path: Path) -> None:
    result = labs.run(name, out=tmp_path / "lab", images=320, data=DATA, seed=1)
    assert [c["name"] for c in result["checks"] if not c["ok"]] == []
    assert len(result["checks"]) == CHECKS[name]
    assert len(result["run"]) == RUNS[name]
    assert all(Run(path).latest.is_dir() for path in result["run"])
    page = Path(result["page"])
    assert page == page.parent / "index.html"
    text = page.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert text.count("data:image/png") == len(result["figures"])
    for path in result["figures"].values():
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    written = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert written["results"] == json.loads(json.dumps(result["results"]))
    assert written["settings"] == {"images": 320, "data": DATA, "seed": 1}
    assert str(tmp_path) not in json.dumps(written)


def test_listing_the_labs_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, limner.labs as labs; labs.titles();"
        "print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_titles_are_one_line_each_in_the_order_of_the_course() -> None:
    titles = labs.titles()
    numbered = [re.match(r"Lab (\d), ", title) for title in titles.values()]
    assert [int(n[1]) for n in numbered if n] == [1, 2, 3, 4, 5]
    assert list(titles)[:5] == list(CHECKS)
    assert all("\n" not in title for title in titles.values())


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("vea", {}, "did you mean 'vae'"),
        ("ae", {"image": 5}, "did you mean 'images'"),
        ("ae", {"images": "many"}, "not a count"),
        ("ae", {"images": 0}, "from 1 up"),
        ("ae", {"seed": -1}, "from 0 up"),
        ("ae", {"iterations": 50}, "unknown setting of lab ae"),
        ("optimal-d", {"images": 50}, "unknown setting of lab optimal-d"),
        ("ae", {"data": "digits"}, "28×28, but digits has 1×8×8"),
        ("ae", {"data": "mini-dsprites"}, "1×32×32"),
        ("ae", {"data": "mnist-6k"}, "mnist-5k"),
        ("cogan", {"data": "mnist"}, "unknown setting of lab cogan"),
        ("cogan", {"of": "digits"}, "of: input should be 'mnist-5k' or 'mnist'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    name: str, settings: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LimnerError, match=re.escape(said)):
        labs.run(name, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(LimnerError, match="another out"):
        labs.run("gan", out=tmp_path, images=64, data=DATA)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_default_folders_are_numbered_when_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limner.labs._bench import _folder

    monkeypatch.chdir(tmp_path)
    assert [str(_folder("ae", None)) for _ in range(3)] == ["runs/lab-ae", "runs/lab-ae-2", "runs/lab-ae-3"]
