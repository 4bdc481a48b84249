"""Processes that read ahead are refused where each would run the whole script again."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from types import ModuleType

import pytest

from limner.core.errors import LimnerError
from limner.core.workers import check_main_guard

CALL = "check_main_guard(workers)"
UNGUARDED = [f"import os\n{CALL}", f"def main():\n    {CALL}\nmain()", f"if True:\n    {CALL}"]
GUARDED = [
    f"if __name__ == '__main__':\n    {CALL}",
    f"def main():\n    {CALL}\nif '__main__' == __name__:\n    x = 1\n    main()",
    f"import sys\nif __name__ != '__main__':\n    sys.exit()\n{CALL}",
]


def run(script: str, workers: int, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, main = tmp_path / "mine.py", ModuleType("__main__")
    file.write_text(script, encoding="utf-8")
    main.__dict__.update(__file__=str(file), check_main_guard=check_main_guard, workers=workers)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: start)
    exec(compile(script, str(file), "exec"), main.__dict__)  # noqa: S102 - the main script of this test


@pytest.mark.parametrize("script", UNGUARDED)
def test_a_script_without_a_guard_is_one_line(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in ("spawn", "forkserver"):
        with pytest.raises(
            LimnerError, match=r"import mine\.py again: put the call under 'if __name__ == .__main__.:'"
        ):
            run(script, 2, start, tmp_path, monkeypatch)
    run(script, 2, "fork", tmp_path, monkeypatch)
    run(script, 0, "spawn", tmp_path, monkeypatch)


@pytest.mark.parametrize("script", GUARDED)
def test_a_script_with_a_guard_passes(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(script, 2, "spawn", tmp_path, monkeypatch)


def test_a_call_from_elsewhere_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    check_main_guard(2)
