"""The rooms of the house: no circle of files hides anywhere, and nothing heavy is imported by accident.

import-linter keeps the floors (`pyproject.toml`). What it cannot see are modules that are imported by their name as
text, so here `import_module` is followed too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILES = {
    ".".join(p.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): p for p in SOURCE.rglob("*.py")
}


def named_in(node: ast.AST, module: str) -> Iterator[str]:
    """The modules that an expression may name: that of a literal, or all that begin as an f-string does, `a.b.{…}`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from [node.value] if node.value in FILES else []
    elif isinstance(node, ast.JoinedStr):
        start = ast.unparse(node)[2:-1].replace("{__name__}", module).partition("{")[0]
        yield from (m for m in FILES if m.startswith(start) and "." not in m.removeprefix(start))


def imported_by(module: str) -> set[str]:
    """The files of limner that a file imports, at once or later, by statement or by text.

    Imports for type checkers alone are left out, and so is `limner` itself, whose public functions are loaded late.
    """
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    by_text = "import_module" in ast.unparse(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = [f"{node.module}.{a.name}" for a in node.names]
            found |= {part if part in FILES else str(node.module) for part in parts}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {m for argument in node.args for m in named_in(argument, module)}
        elif by_text and isinstance(node, ast.Constant):  # tables of names that import_module is given
            found |= set(named_in(node, module))
    return {m for m in found if m in FILES and m not in ("limner", module)}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of files that import one another (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            circle = set()
            while node not in circle:
                circle.add(stack.pop())
            found.extend([circle] if len(circle) > 1 else [])

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = {module: imported_by(module) for module in FILES if module != "limner"}
    assert graph["limner.config.catalogue"] >= {"limner.models.vae", "limner.nets.mlp", "limner.data"}
    assert "limner.data.sources.toys" in graph["limner.data.sources"]
    assert circles(graph) == []


def test_a_planted_circle_is_found() -> None:
    graph = {module: imported_by(module) for module in FILES if module != "limner"}
    graph["limner.core.errors"].add("limner.models.vae")
    (circle,) = circles(graph)
    assert {"limner.core.errors", "limner.core.model", "limner.models.vae"} <= circle


def test_importing_limner_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, limner; limner.__version__; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=600).returncode == 0
