"""`benchmarks/damage.py` on a few damaged runs: every reader succeeds or refuses in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def damage() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import damage

        yield damage


@pytest.fixture(scope="module")
def run(damage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(damage.trained(tmp_path_factory.mktemp("damaged")))


def test_the_readers_read_what_is_whole(damage: ModuleType, run: Path) -> None:
    for reader in (*damage.QUICK, damage.resumed):
        found = damage.outcome("", reader, run)
        assert found.kind == "read", found


def test_no_damage_is_a_traceback(damage: ModuleType, run: Path) -> None:
    found = list(damage.trials(run, 3 * len(damage.FILES), 2, damage.QUICK))
    assert [o for o in found if o.kind not in ("read", "refused")] == []
    assert sum(o.kind == "refused" for o in found) > 5


def test_no_damage_is_a_traceback_when_a_run_is_resumed(damage: ModuleType, run: Path) -> None:
    found = list(damage.trials(run, len(damage.FILES), 3, (damage.resumed,)))
    assert [o for o in found if o.kind not in ("read", "refused")] == []
