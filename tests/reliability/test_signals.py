"""SIGTERM, SIGINT and two writers, with real processes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import limner
from limner.core.run import Run

from .conftest import QUICK, assert_same_bits, call, command, environment, until, words  # noqa: TID252 - tests are no package that could be imported by name

ENDLESS = 10_000_000


@pytest.fixture
def training(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A run in the middle of its training, and its process."""
    out = tmp_path / "run"
    start = command("train", "vae-mnist", f"out={out}", *words(train__images=ENDLESS, train__checkpoint_images=ENDLESS))
    process = subprocess.Popen(start, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
    until((out / "metrics.jsonl").is_file)
    yield out, process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_resume_is_exact(
    training: tuple[Path, subprocess.Popen[str]], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run, process = training
    if number == signal.SIGTERM:
        process.send_signal(signal.SIGSTOP)  # it holds its lock, and there is less to train again below
        refused = call("resume", run)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "is in use by another process" in refused.stderr
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == code
    assert "limner resume" in stderr.splitlines()[-1]
    stopped = int(Run(run).latest.name)
    more = stopped + 160
    limner.resume(run, images=more)
    whole = limner.train(
        "vae-mnist", out=tmp_path / "whole", **QUICK | {"train.images": more, "train.checkpoint_images": ENDLESS}
    )
    assert_same_bits(run, whole.path)
    assert [e["event"] for e in Run(run).events() if e["event"] in ("start", "stop", "resume", "done")] == [
        "start",
        "stop",
        "resume",
        "done",
    ]
