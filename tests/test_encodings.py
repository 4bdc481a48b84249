"""Text files are UTF-8 by name everywhere: the default of a machine, such as cp1252, is never used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def lacks_encoding(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a text file without an encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(k.arg in ("encoding", None) for k in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        started = name in ("run", "Popen", "check_output", "check_call")
        return started and any(k.arg in ("text", "universal_newlines") for k in call.keywords)
    owner = getattr(getattr(call.func, "value", None), "id", "")
    written = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
    modes = [m for m in written if isinstance(m, str) and re.fullmatch("[rwaxbt+U]{1,4}", m)]
    is_text = modes and "b" not in modes[-1]
    return owner not in ("av_", "av", "Image", "os") and bool(is_text or not (call.args or call.keywords))


def test_every_text_file_has_an_encoding() -> None:
    files = [p for folder in ("src", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    found = [f"{p.relative_to(ROOT)}:{c.lineno}" for p in files for c in calls(p) if lacks_encoding(c)]
    assert not found
