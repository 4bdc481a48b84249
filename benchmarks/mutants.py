"""Plants forty small faults in the code, one at a time, and runs the tests, which should fail.

A suite that passes says little until one knows what it would not pass. Each mutant is the package with one fault on one
line (`faults.py`), drawn with a fixed seed from the packages in turn and from no file more than twice. The tests that
ought to notice run against it, the nearest first, until one fails: the module's doctests, the test file of its name,
test files that import the module, give its catalogue name or train one of its recipes, then those that import a module
that imports it, and at last `test_every_recipe.py` on the recipe nearest to it. A failure, a crash or a hang kills the
mutant. The same tests first run on the code as it is and must pass.

A survivor is a line whose meaning no test holds: write the missing fact as a test. Where the fault changes nothing
that anyone could observe (a shortcut that gives the same numbers, a guard that cannot be reached), the line says more
than it needs to: simplify it, or name the survivor as harmless and say why.

    python benchmarks/mutants.py                           the 40 of seed 0; at least 38 must die
    python benchmarks/mutants.py --seed 1 --mutants 12
    python benchmarks/mutants.py --diff                    shows the faults and their tests, runs nothing
    python benchmarks/mutants.py --only 7                  the seventh of them
    python benchmarks/mutants.py --json results.json       goes on where an earlier call with that file was stopped

Everything happens in a copy of the project; one processor is enough. A result is kept in the file under a key made of
the mutated source and of its tests, so that a new or changed test has the mutant run again.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import difflib
import hashlib
import itertools
import json
import os
import py_compile
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from faults import OPERATORS, Fault, counts, faults

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "config", "models", "losses", "nets", "data", "samplers")
CATALOGUE = ("models", "nets")  # packages whose modules recipes and tests call by a short name
COMMON = {"__init__", "forward", "step", "draw", "groups"}  # what many classes have says nothing of one
STEPS = 2  # imports between what a test imports and the module that it ought to notice, at most
A_FILE = 2  # mutants, at most
NEAREST, SECONDS = 12, 120  # test files per mutant, and what they may take together without a fault
EVERY_RECIPE = "tests/test_every_recipe.py"
KILLED = 0.95  # of the mutants, the promise
START, SLACK = 60, 5  # a run may take so many seconds, and so many times what the unmutated one takes
NO_TESTS = 5  # pytest's exit code


# ---- which tests ought to notice -------------------------------------------------------------------------------------


class Reading:
    """What a Python file imports and names.

    Args:
        tree: the file.
        code: the modules that are known, and what packages offer under names of their own.
    """

    def __init__(self, tree: ast.Module, code: Modules) -> None:
        nodes = list(ast.walk(tree))
        self.strings = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        self.names = {getattr(n, "id", getattr(n, "attr", "")) for n in nodes}
        self.imports = {name for name in self._imported(nodes, code) if name in code.names}
        self.imports |= self.strings & code.names  # import_module("…"), a table of lazy names

    @staticmethod
    def _imported(nodes: list[ast.AST], code: Modules) -> Iterator[str]:
        for node in nodes:
            match node:
                case ast.Import(names=names):
                    yield from (n.name for n in names)
                case ast.ImportFrom(module=str(module), names=names):
                    yield from (code.home(module, n.name) for n in names)
                case ast.Attribute(value=ast.Name(id=code.package), attr=name):
                    yield code.home(code.package, name)


class Modules:
    """The modules of the package, who imports whom, and which tests are near to which.

    Args:
        root: the project.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.package = root, next((root / "src").glob("*/__init__.py")).parent.name
        files = sorted((root / "src").rglob("*.py"))
        self.paths = {self._dotted(p): p.relative_to(root) for p in files}
        self.names = set(self.paths)
        self.homes: dict[tuple[str, str], str] = {}
        trees = {name: ast.parse((root / p).read_text(encoding="utf-8")) for name, p in self.paths.items()}
        for name in (n for n, p in self.paths.items() if p.name == "__init__.py"):
            self.homes |= dict(self._offered(name, trees[name]))
        self.imports = {name: Reading(tree, self).imports for name, tree in trees.items()}

    def _dotted(self, path: Path) -> str:
        parts = path.relative_to(self.root / "src").with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @staticmethod
    def _offered(package: str, tree: ast.Module) -> Iterator[tuple[tuple[str, str], str]]:
        """What a package offers under its own name, and the module where it lives: imports, or a table of names."""
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module=str(module), names=names):
                    yield from (((package, n.asname or n.name), module) for n in names)
                case ast.Dict(keys=keys, values=values):
                    for key, value in zip(keys, values):
                        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                            yield (package, str(key.value)), str(value.value)

    def home(self, module: str, name: str) -> str:
        """The module that `from module import name` reads."""
        inner = f"{module}.{name}"
        offered = self.homes.get((module, name), module)
        return inner if inner in self.names else offered if offered in self.names else module

    @cached_property
    def tests(self) -> dict[str, Reading]:
        """The test files that mirror the package, by their path."""
        files = sorted((self.root / "tests").rglob("test_*.py"))
        read = {p.relative_to(self.root): p for p in files if self._mirrors(p.relative_to(self.root).parts)}
        return {str(short): Reading(ast.parse(path.read_text(encoding="utf-8")), self) for short, path in read.items()}

    def _mirrors(self, parts: tuple[str, ...]) -> bool:
        name = parts[1] if len(parts) > 2 else parts[1].removeprefix("test_").removesuffix(".py")
        return f"{self.package}.{name}" in self.names

    @cached_property
    def recipes(self) -> dict[str, set[str]]:
        """What the shipped recipes name: models, nets, data sets, degradations."""
        found = sorted((self.root / "src").rglob("recipes/*.yaml"))
        return {p.stem: set(_named(yaml.safe_load(p.read_text(encoding="utf-8")))) for p in found}

    def given(self, words: set[str], name: str) -> bool:
        """Whether words give a model or net by its name in the catalogue: `wgan_gp`, `dcgan.Generator`."""
        stem = name.rpartition(".")[2]
        return _package(name) in CATALOGUE and any(w == stem or w.startswith(f"{stem}.") for w in words)

    def steps(self, imports: set[str], name: str, most: int) -> int:
        """How many imports lead to a module; one more than `most` where none do."""
        seen, front = set(imports), set(imports)
        for n in range(most):
            if name in front:
                return n
            front = {i for m in front for i in self.imports.get(m, ()) if m != self.package} - seen
            seen |= front
        return most + (name not in front)

    def related(self, name: str, line: int) -> list[str]:
        """The test files of a line, the nearest first.

        The module's doctests and the file of its name come first, then those that mention what the line belongs to,
        that import the module, that import a module which imports it; among equals the most particular.
        """
        text = (self.root / self.paths[name]).read_text(encoding="utf-8")
        around, own = _around(ast.parse(text), line), f"test_{name.rpartition('.')[2].lstrip('_')}.py"
        ranks = {}
        for path, test in self.tests.items():
            same = path.split("/")[1] == _package(name)
            words = {w for recipe, named in self.recipes.items() if recipe in test.strings for w in named}
            near = 0 if self.given(test.strings | words, name) else self.steps(test.imports, name, STEPS)
            if name.rpartition(".")[0] in test.imports:  # it may ask every module of the package
                near = min(near, 1)
            mirror = same and path.endswith(f"/{own}")
            if mirror or near <= STEPS:
                ranks[path] = (not mirror, -len(around & test.names), near, not same, len(test.imports), path)
        doctests = [str(self.paths[name])] if ">>>" in text else []
        return doctests + sorted(ranks, key=ranks.__getitem__)[:NEAREST]

    def recipe(self, name: str) -> str:
        """The recipe nearest to a module: it names it, or a net or model from which fewest imports lead there."""

        def rank(recipe: str) -> tuple[int, str]:
            words = self.recipes[recipe]
            if self.given(words, name) or words & self._strings(name):
                return 0, recipe
            used = {n for n in self.names if self.given(words, n)}
            return 1 + self.steps(used, name, 9), recipe

        return min(self.recipes, key=rank)

    def _strings(self, name: str) -> set[str]:
        """The texts of a module of data, among them the names of its sets and degradations."""
        tree = ast.parse((self.root / self.paths[name]).read_text(encoding="utf-8"))
        return Reading(tree, self).strings if _package(name) == "data" else set()


def _package(name: str) -> str:
    """`losses` of `limner.losses.style`; empty for a module at the top."""
    return name.split(".")[1] if name.count(".") > 1 else ""


def _around(tree: ast.Module, line: int) -> set[str]:
    """The functions and classes that a line belongs to."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name for n in ast.walk(tree) if isinstance(n, kinds) and n.lineno <= line <= (n.end_lineno or 0)} - COMMON


def _named(tree: Any) -> Iterator[str]:
    """Every `name` and `task` in a recipe."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key in ("name", "task") and isinstance(value, str):
            yield value
        yield from _named(value)


# ---- which mutants ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One fault in one module, and the tests that ought to notice it.

    Args:
        module: its dotted name.
        path: its file, from the root.
        text: its source as it is.
        fault: what is planted.
        tests: test files, the nearest first.
        recipe: what `test_every_recipe.py` is restricted to.
    """

    module: str
    path: Path
    text: str
    fault: Fault
    tests: tuple[str, ...]
    recipe: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to('src')}:{self.fault.line}".partition("/")[2]

    @property
    def change(self) -> str:
        """What differs on the line, with a little around it."""
        before, after = self.fault.lines(self.text)
        start = _common(before, after)
        end = _common(before[start:][::-1], after[start:][::-1])
        left, right = max(0, start - 12), 12
        old, new = (line[left : len(line) - end + right] for line in (before, after))
        return f"{old.strip()}  →  {new.strip()}"

    @cached_property
    def key(self) -> str:
        """A digest of the mutated source and its tests."""
        files = [(ROOT / t).read_bytes() for t in (*self.tests, EVERY_RECIPE)]
        texts = [str(self.path).encode(), self.fault.plant(self.text).encode(), self.recipe.encode(), *files]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()[:24]

    def diff(self) -> str:
        before, after = self.text.splitlines(True), self.fault.plant(self.text).splitlines(True)
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path), n=2))


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def drawn(modules: Modules, number: int, seed: int) -> list[Mutant]:
    """Mutants of all packages in turn, of all operators alike, and at most `A_FILE` in a file."""
    chance, used, files = random.Random(seed), Counter[str](), Counter[str]()
    sources = {
        n: (modules.root / p).read_text(encoding="utf-8") for n, p in modules.paths.items() if _package(n) in PACKAGES
    }
    places: dict[str, list[tuple[str, Fault]]] = {}
    for name, text in sources.items():
        places.setdefault(_package(name), []).extend((name, fault) for fault in faults(text))
    found: list[Mutant] = []
    for package in itertools.cycle([p for p in PACKAGES if p in places]):
        if len(found) == number or not any(places.values()):
            return found
        free = places[package] = [(n, f) for n, f in places[package] if files[n] < A_FILE]
        if free:
            operators = sorted({f.operator for _, f in free})
            rarest = min(operators, key=lambda o: (used[o], chance.random()))
            name, fault = chance.choice([(n, f) for n, f in free if f.operator == rarest])
            places[package].remove((name, fault))
            if counts(fault, sources[name]):
                tests = tuple(modules.related(name, fault.line))
                found.append(Mutant(name, modules.paths[name], sources[name], fault, tests, modules.recipe(name)))
                used[rarest] += 1
                files[name] += 1
    return found


# ---- running them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The result of the tests.

    Args:
        by: the test that failed, or how the run ended; empty when all passed.
        seconds: how long it took to know.
        output: what pytest printed.
    """

    by: str
    seconds: float
    output: str = ""


class Copy:
    """A copy of the project in which faults are planted and tests run.

    Args:
        folder: where it is made; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.root, self.scratch = folder, folder.with_name("scratch")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "_build", "dist", "runs"))
        # by content, not by time: a mutant may have the size of its original and be written in the same second
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "src", quiet=1, invalidation_mode=checked)

    def pytest(self, arguments: list[str], limit: float | None = None) -> Verdict:
        """Runs pytest until the first failure, in a process of its own."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "-rfE", "-m", "not slow"]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(self.root / "src"),
            "LIMNER_CACHE": str(self.scratch / "cache"),
        }
        command = [sys.executable, "-m", "pytest", *options, "--basetemp", str(self.scratch / "tmp"), *arguments]
        began = time.monotonic()
        # in a session of its own, so that the processes which tests start end with it
        process = subprocess.Popen(
            command, cwd=self.root, env=environment, text=True, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8",
        )  # fmt: skip
        try:
            output, hung = process.communicate(timeout=limit)[0], False
        except subprocess.TimeoutExpired:
            output, hung = "", True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        by = "a hang" if hung else "" if process.returncode in (0, NO_TESTS) else _failed(process.returncode, output)
        return Verdict(by, time.monotonic() - began, output)

    def green(self, mutants: list[Mutant]) -> dict[str, float]:
        """Runs the tests of all mutants on the code as it is; the seconds of each file, or the end where one fails."""
        files = sorted({t for m in mutants for t in m.tests})
        report, seconds = self.root / "green.xml", defaultdict[str, float](float)
        for arguments in (files, [EVERY_RECIPE, "-k", _any({m.recipe for m in mutants})]):
            verdict = self.pytest([*arguments, "--junitxml", str(report), "-o", "junit_family=xunit1"])
            if verdict.by:
                sys.exit(f"Without a fault, {verdict.by} fails: mend that first.\n{verdict.output[-2000:]}")
            for case in ET.parse(report).iter("testcase"):
                recipe = re.search(r"\[(.+)\]", case.get("name", ""))
                own = case.get("file") == EVERY_RECIPE and recipe
                seconds[recipe[1] if own and recipe else case.get("file", "")] += float(case.get("time", 0))
        return dict(seconds)

    def run(self, mutant: Mutant, seconds: dict[str, float]) -> Verdict:
        """Plants a fault, asks the tests, and takes it out again."""
        target, spent = self.root / mutant.path, 0.0
        recipe = [EVERY_RECIPE, "-k", _any({mutant.recipe})]
        target.write_text(mutant.fault.plant(mutant.text), encoding="utf-8")
        try:
            for arguments, files in ((near := _within(mutant.tests, seconds), near), (recipe, [mutant.recipe])):
                verdict = self.pytest(arguments, START + SLACK * sum(seconds.get(f, 0) for f in files))
                spent += verdict.seconds
                if verdict.by:
                    break
        finally:
            target.write_text(mutant.text, encoding="utf-8")
        return Verdict(verdict.by, spent)


def _within(tests: tuple[str, ...], seconds: dict[str, float]) -> list[str]:
    """The nearest tests that fit into the time; one that is too long leaves room for those behind it."""
    chosen, left = [], float(SECONDS)
    for test in tests:
        if seconds.get(test, 0) <= left:
            chosen.append(test)
            left -= seconds.get(test, 0)
    return chosen


def _any(recipes: set[str]) -> str:
    """What `-k` needs to choose the tests of some recipes exactly."""
    return " or ".join(f"[{r}]" for r in sorted(recipes))


def _failed(code: int, output: str) -> str:
    """The first test that failed, or how pytest ended."""
    first = re.search(r"^(?:FAILED|ERROR) (\S+(?:\[.*?\])?)", output, re.MULTILINE)
    if first:
        return first[1]
    return f"a crash ({signal.Signals(-code).name})" if code < 0 else f"pytest's exit code {code}"


def results(mutants: list[Mutant], kept: dict[str, Any]) -> Iterator[tuple[Mutant, Verdict]]:
    """The verdict on each mutant as it comes; what is kept already is taken from there, what is new is put there."""
    known = kept["mutants"]
    with tempfile.TemporaryDirectory() as name:
        copy = Copy(Path(name) / ROOT.name) if any(m.key not in known for m in mutants) else None
        if copy and kept["green"]["key"] != (key := _digest(mutants)):
            kept["green"] = {"key": key, "seconds": copy.green(mutants)}
        seconds = kept["green"]["seconds"]
        print(f"without a fault, {sum(seconds.values()):.0f} s of tests pass", flush=True)
        for mutant in mutants:
            if copy and mutant.key not in known:
                verdict = copy.run(mutant, seconds)
                what = {"place": mutant.place, "operator": mutant.fault.operator, "change": mutant.change}
                known[mutant.key] = what | {"by": verdict.by, "seconds": round(verdict.seconds, 1)}
            yield mutant, Verdict(known[mutant.key]["by"], known[mutant.key]["seconds"])


def _digest(mutants: list[Mutant]) -> str:
    """A digest of the package as it is and of the mutants' tests."""
    files = [p.read_bytes() for p in sorted((ROOT / "src").rglob("*.py"))]
    return hashlib.sha256(b"\0".join([*files, *(m.key.encode() for m in mutants)])).hexdigest()[:24]


def table(verdicts: list[tuple[Mutant, Verdict]]) -> str:
    """Killed and planted, by package and by operator."""
    lines = []
    for title, kinds in (("package", PACKAGES), ("operator", OPERATORS)):
        lines.append(f"\n{title:<12} planted  killed")
        for kind in kinds:
            ours = [v for m, v in verdicts if kind in (_package(m.module), m.fault.operator)]
            if ours:
                lines.append(f"{kind:<12} {len(ours):>7}  {sum(bool(v.by) for v in ours):>6}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", type=int, metavar="N", help="run the Nth alone")
    parser.add_argument("--diff", action="store_true", help="show the mutants and their tests, and run nothing")
    parser.add_argument("--json", type=Path, help="write the results to this file, and go on from what it has")
    options = parser.parse_args()
    mutants = drawn(Modules(ROOT), options.mutants, options.seed)
    if options.only is not None and not 1 <= options.only <= len(mutants):
        parser.error(f"there are {len(mutants)} mutants")
    chosen = mutants[options.only - 1 : options.only] if options.only else mutants
    if options.diff:
        for m in chosen:
            print(f"{mutants.index(m) + 1}. {m.fault.operator}\n{m.diff()}tests: {' '.join(m.tests)}; {m.recipe}\n")
        return
    kept: dict[str, Any] = {"green": {"key": "", "seconds": {}}, "mutants": {}}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text(encoding="utf-8"))
    verdicts = []
    for mutant, verdict in results(chosen, kept):
        verdicts.append((mutant, verdict))
        outcome = f"killed by {verdict.by}" if verdict.by else "SURVIVED"
        what = f"{mutants.index(mutant) + 1:>2}/{len(mutants)}  {mutant.place:<32} {mutant.fault.operator:<10}"
        print(f"{what} {mutant.change}\n       {outcome} ({verdict.seconds:.0f} s)", flush=True)
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    killed = sum(bool(v.by) for _, v in verdicts)
    print(table(verdicts))
    print(f"\n{killed} of {len(verdicts)} killed in {sum(v.seconds for _, v in verdicts) / 60:.0f} minutes")
    for mutant, verdict in verdicts:
        if not verdict.by:
            print(f"\nsurvived: {mutant.place}\n{mutant.diff()}", end="")
    sys.exit(killed < KILLED * len(verdicts))


if __name__ == "__main__":
    main()
