"""The faults that `benchmarks/mutants.py` plants, and the order in which it runs tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import mutants

    return mutants


CHANGES = {
    "comparison": ("return a < b", "return a <= b"),
    "arithmetic": ("return a * b + 'x'", "return a / b + 'x'"),
    "logic": ("return a and b", "return a or b"),
    "negation": ("return not a", "return (a)"),
    "constant": ("return x.view(7, b)", "return x.view(8, b)"),
    "condition": ("if a: b()", "if False: b()"),
    "sibling": ("return x.square().mean()", "return x.square().sum()"),
    "order": ("return f(a, b, c)", "return f(b, a, c)"),
    "keyword": ("return f(a, dim=b)", "return f(a)"),
    "call": ("return f(x.detach())", "return f(x)"),
    "statement": ("x.clamp_(a, b)", "pass"),
    "value": ("return a", "return -(a)"),
    "loop": ("for _ in a: break", "for _ in a: continue"),
}


def test_every_operator_has_an_example(mutants: ModuleType) -> None:
    assert CHANGES.keys() == mutants.OPERATORS.keys()


@pytest.mark.parametrize("operator", CHANGES)
def test_an_operator_makes_its_change(mutants: ModuleType, operator: str) -> None:
    before, after = CHANGES[operator]
    text = f"def f(a, b, c, x) -> Tensor:\n    {before}  # σ: bytes and characters differ\n"
    planted = [f.plant(text) for f in mutants.faults(text) if f.operator == operator]
    assert text.replace(before, after) in planted


def test_a_fault_changes_one_line_and_still_compiles(mutants: ModuleType) -> None:
    text = (ROOT / "benchmarks" / "mutants.py").read_text()
    faults = [f for f in mutants.faults(text)[::29] if mutants.counts(f, text)]
    assert len({f.operator for f in faults}) > 5
    for fault in faults:
        planted = fault.plant(text)
        compile(planted, "planted", "exec", dont_inherit=True)
        differ = [i for i, (a, b) in enumerate(zip(text.split("\n"), planted.split("\n"), strict=True), 1) if a != b]
        assert differ == [fault.line]


@pytest.mark.parametrize(
    "text",
    [
        '"""1 < 2"""',
        "x: Literal[1, 2]",
        "def f(x: Annotated[int, 1 + 1]) -> None: ...",
        "raise ValueError(f'{n} < 1', 3)",
        "assert a < b, 5",
        "f'{a + b:.3f} {1}'",
        "def __repr__(self) -> str:\n    return str(1 + 2)",
        "if TYPE_CHECKING:\n    X = 1 + 2",
        "class Net(Protocol):\n    z: int = 1",
        "y = x.to(d, non_blocking=True, memory_format=1)",
        "y = Adam(p, fused=True, foreach=False)",
        "if x.is_cuda:\n    y = 2 * x",
        "y = torch.cuda.memory(1)",
        "os.fsync(1)",
        "with torch.no_grad():\n    y = x.detach()",
    ],
)
def test_nothing_is_planted_where_no_result_would_change(mutants: ModuleType, text: str) -> None:
    assert mutants.faults(text) == []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A model that uses a loss, and their tests."""
    doctest = '"""\n    >>> 1\n    1\n    """'
    files = {
        "src/toy/__init__.py": "",
        "src/toy/losses/__init__.py": "",
        "src/toy/losses/l1.py": f"def l1(a, b):\n    {doctest}\n    return (a - b).abs().mean() + 2 * 3 - 4",
        "src/toy/models/__init__.py": "",
        "src/toy/models/net.py": "from toy.losses.l1 import l1\nclass Net:\n    def step(self):\n        l1(3, 1)",
        "src/toy/recipes/net-dots.yaml": "model: {name: net}\ndata: {name: dots}",
        "src/toy/recipes/other.yaml": "model: {name: other}",
        "tests/losses/test_l1.py": "from toy.losses.l1 import l1",
        "tests/losses/test_other.py": "import os",
        "tests/models/test_named.py": "build('net')",
        "tests/models/test_trained.py": "train('net-dots')",
        "tests/models/test_uses.py": "from toy.models import net\n\nnet.Net()",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    return tmp_path


def test_the_nearest_tests_come_first(mutants: ModuleType, project: Path) -> None:
    modules = mutants.Modules(project)
    own = ["src/toy/losses/l1.py", "tests/losses/test_l1.py"]
    assert modules.related("toy.losses.l1", 6) == [*own, "tests/models/test_uses.py"]
    named = ["tests/models/test_named.py", "tests/models/test_trained.py"]
    assert modules.related("toy.models.net", 4) == ["tests/models/test_uses.py", *named]
    assert modules.recipe("toy.models.net") == modules.recipe("toy.losses.l1") == "net-dots"


def test_a_draw_has_faults_of_every_package(mutants: ModuleType, project: Path) -> None:
    drawn = mutants.drawn(mutants.Modules(project), 10, seed=3)
    assert [m.module for m in drawn] == ["toy.models.net", "toy.losses.l1"] * 2


def test_a_draw_is_a_function_of_its_seed_in_every_process(project: Path) -> None:
    """The order of a Python set changes between processes; a draw must not depend on it."""

    def drawn(seed: int, hashing: str) -> str:
        code = f"""
from pathlib import Path
from mutants import Modules, drawn
print(*(m.fault for m in drawn(Modules(Path({str(project)!r})), 10, {seed})))
"""
        environment = os.environ | {"PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT / "benchmarks")}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True
        ).stdout.decode()

    assert drawn(3, "1") == drawn(3, "2") != drawn(4, "2")
