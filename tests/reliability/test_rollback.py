"""`train.guard`: a training that meets values that are not finite goes back by itself, and is resumed bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import limner
from limner.config import catalogue
from limner.core import checkpoint, rollback
from limner.core.checkpoint import LATEST, folders, read, read_pointer
from limner.core.errors import LimnerError
from limner.core.optimisers import Adam
from limner.core.progress import Silent
from limner.core.run import Run
from limner.core.train import Interrupted
from limner.core.update import Updates, all_finite

from .conftest import ROOT, assert_same_bits, environment, tensors  # noqa: TID252 - tests are no package that could be imported by name

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    """`benchmarks/rollback.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        patch.delitem(sys.modules, "rollback", raising=False)
        import rollback as script

        yield script


class Told(Silent):
    """What is said; at one call of `step` it does something."""

    def __init__(self, at: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.calls, self.at, self.action = 0, at, action

    def step(self, position: int) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.action()

    def say(self, message: str) -> None:
        self.said.append(message)


def trained(faults: ModuleType, recipe: str, fault: Any, out: Path, progress: Any = None, **more: Any) -> Run:
    """A training of 24 steps with a log line every 4 and a checkpoint every 6, unless said otherwise."""
    tree = faults.small(recipe, **more)
    with faults.planted(catalogue.find("model", tree["model"]["name"]), fault):
        return limner.train(tree, out=out, progress=progress)


def resumed(faults: ModuleType, run: Path, fault: Any, **more: Any) -> Run:
    with faults.planted(catalogue.find("model", Run(run).recipe["model"]["name"]), fault):
        return limner.resume(run, **more)


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    return [e for e in run.events() if e["event"] == kind]


# ---- it ends by itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        ("vae-mnist", ("input", NAN, "VAE", 12, 18, 2)),
        ("gan-mnist", ("gradient", INF, "D", 0, 6, 1)),
        pytest.param("dcgan-mnist", ("norm", NAN, "G", 15, 15, 1), marks=pytest.mark.slow),
        pytest.param("r3gan-mnist", ("gradient", INF, "D", 0, 6, 2), marks=pytest.mark.slow),
        pytest.param("ddpm-mnist", ("loss", -INF, "F", 17, 23, 1), marks=pytest.mark.slow),
    ],
)
def test_trainings_with_a_fault_end_well(
    faults: ModuleType, recipe: str, fault: tuple[Any, ...], tmp_path: Path
) -> None:
    assert faults.outcome(recipe, faults.Fault(*fault), tmp_path / "run") == "ended well"


def test_the_benchmark_sees_what_it_is_for(faults: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its faults reach a training, and neither too few roll-backs nor a bad checkpoint would be overlooked."""
    fault = faults.Fault("loss", NAN, "VAE", 12, 19, 1)
    assert faults.outcome("vae-mnist", fault, tmp_path / "bare", guard=False).startswith("error: the loss")
    assert faults.outcome("vae-mnist", faults.Fault("loss", NAN, "VAE", 50, 60, 1), tmp_path / "late").startswith("0 ")
    monkeypatch.setattr(rollback, "is_finite", lambda *_: True)
    monkeypatch.setattr(rollback, "trouble", lambda *_: None)
    poisoned = faults.outcome("infogan-mnist", faults.Fault("norm", NAN, "G", 15, 15, 1), tmp_path / "poisoned")
    assert poisoned == "poisoned checkpoint 00000144"


def test_a_roll_back_is_said_and_recorded_and_leaves_no_trace_in_the_curves(faults: ModuleType, tmp_path: Path) -> None:
    """Step 5 is bad, so the checkpoint after it, of finite weights, is none to come back to."""
    kept: list[str] = []
    root = tmp_path / "run" / "checkpoints"
    told = Told(17, lambda: kept.extend(p.name for p in folders(root)))  # at the first step after the roll-back
    fault = faults.Fault("loss", NAN, "G", 11, 18, 1)
    optim = {"G": {"name": "adam", "lr": 4e-4, "decay": 0.5}, "D": {"name": "adam", "lr": 2e-4}}
    tree = faults.small("gan-mnist", keep=1) | {"optim": optim}
    with faults.planted(catalogue.find("model", "gan"), fault):
        run = limner.train(tree, out=tmp_path / "run", progress=told)
    (back,) = events(run, "rollback")
    assert {k: back[k] for k in ("images", "from", "to", "reason")} == {
        "images": 128,
        "from": 128,
        "to": 48,
        "reason": "the loss or its gradient is not finite",
    }
    assert back["rates"] == {"G": 2e-4, "D": 1e-4}
    assert back["message"] in told.said
    assert "at image 128: back to checkpoint 00000048" in back["message"]
    assert "roll-back 1 of 3" in back["message"]
    assert [line["images"] for line in run.metrics()] == list(range(32, 193, 32))
    assert all(value is not None for line in run.metrics() for value in line.values())
    assert [images for images, _ in run.samples()] == [0, 160, 192]
    saved = [e["images"] for e in events(run, "checkpoint")]
    assert kept == ["00000048"]
    assert saved == [0, 48, 96, 96, 144, 192], "96 was written twice: the first was none to come back to"
    assert read(run.latest).state["rollbacks"] == 1
    assert "back to checkpoint 00000048" in (run.path / "report.html").read_text(encoding="utf-8")


def test_rates_are_halved_and_the_noise_is_another(
    faults: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, orders = [], []

    class Watched(Told):
        def step(self, position: int) -> None:
            rates.append(training.update.optimisers["VAE"].param_groups[0]["lr"])
            orders.append((position, training.stream.readers[0].sampler.permutation(0).tolist()))

    from limner.core import train

    class Training(train._Training):
        def __post_init__(self) -> None:
            nonlocal training
            training = self
            super().__post_init__()

    training: Any = None
    monkeypatch.setattr(train, "_Training", Training)
    fault = faults.Fault("loss", NAN, "VAE", 0, 7, 2)
    trained(faults, "vae-mnist", fault, tmp_path / "run", Watched(), images=96)
    assert rates == [1e-3] * 4 + [5e-4] * 4 + [2.5e-4] * 12
    first = [order for position, order in orders if position == 8]
    assert len({tuple(order) for order in first}) == 3
    assert [sorted(order) for order in first] == [list(range(64))] * 3


# ---- it ends in an error ---------------------------------------------------------------------------------------------


def test_after_three_roll_backs_it_is_an_error(faults: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"it was rolled back 3 times; checkpoint 00000096 is intact") as error:
        trained(faults, "vae-mnist", faults.Fault("loss", NAN, "VAE", 12, 99, 99), tmp_path / "run")
    assert "optim.VAE.lr=0.0001" in str(error.value)
    assert "train.guard" not in str(error.value)
    run = Run(tmp_path / "run")
    assert [e["to"] for e in events(run, "rollback")] == [96, 96, 96]
    assert [e["rates"]["VAE"] for e in events(run, "rollback")] == [5e-4, 2.5e-4, 1.25e-4]
    assert run.events()[-1]["event"] == "stop"
    assert all(all_finite(limner.load(folder).state_dict().values()) for folder in folders(run.checkpoints))


@pytest.mark.parametrize(("recipe", "place"), [("vae-mnist", "loss"), ("infogan-mnist", "norm")])
def test_without_the_guard_it_is_an_error_that_names_it(
    faults: ModuleType, recipe: str, place: str, tmp_path: Path
) -> None:
    """What it advises is then enough to come to the end."""
    fault = faults.Fault(place, NAN, "VAE" if recipe == "vae-mnist" else "G", 13, 20, 1)
    with pytest.raises(LimnerError, match=r"not finite at image \d+; checkpoint 00000096 is intact.*train.guard=true"):
        trained(faults, recipe, fault, tmp_path / "run", guard=False)
    assert [p.name for p in folders(tmp_path / "run" / "checkpoints")] == ["00000048", "00000096"]
    assert events(Run(tmp_path / "run"), "rollback") == []
    run = resumed(faults, tmp_path / "run", fault, **{"train.guard": True})
    assert run.events()[-1]["event"] == "done"
    assert all_finite(tensors(run.path).values())
    assert [e["to"] for e in events(run, "rollback")] == [96]


# ---- it is resumed like any other training ---------------------------------------------------------------------------

FAULT = ("loss", NAN, "VAE", 13, 20, 1)  # met at step 16, image 128; back to step 12


class Killed(BaseException):
    """Ends a training at once, as SIGKILL would."""


def kill() -> None:
    raise Killed


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole(faults: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training, rolled back once."""
    run = trained(faults, "vae-mnist", faults.Fault(*FAULT), tmp_path_factory.mktemp("whole") / "run", ema_images=64)
    assert [e["to"] for e in events(run, "rollback")] == [96]
    return run.path


@pytest.mark.parametrize(
    ("end", "at"),
    [(kill, 18), (kill, 26), (interrupt, 14), (interrupt, 18)],
    ids=["killed after the roll-back", "killed after a checkpoint of it", "stopped in the fault", "stopped after it"],
)
def test_an_interrupted_training_ends_with_the_same_bits(
    faults: ModuleType, whole: Path, end: Callable[[], None], at: int, tmp_path: Path
) -> None:
    fault = faults.Fault(*FAULT)
    with pytest.raises((Killed, Interrupted)):
        trained(faults, "vae-mnist", fault, tmp_path / "run", Told(at, end), ema_images=64)
    run = resumed(faults, tmp_path / "run", fault)
    assert_same_bits(run.path, whole)
    kept = [[p.name for p in folders(r / "checkpoints")] for r in (run.path, whole)]
    assert kept[0] == kept[1]
    assert read(run.latest).state["rollbacks"] == 1


def test_where_nothing_goes_wrong_the_guard_changes_no_bit(faults: ModuleType, tmp_path: Path) -> None:
    late = faults.Fault("loss", NAN, "VAE", 99, 99, 1)
    runs = [trained(faults, "vae-mnist", late, tmp_path / str(on), guard=on, images=96) for on in (True, False)]
    assert_same_bits(runs[0].path, runs[1].path)


_SCRIPT = """
import sys
import limner, rollback
from limner.config import catalogue
from limner.core import dist

class OnSecond(rollback.Fault):
    def strikes(self, data):
        return data.shard.rank == 1 and super().strikes(data)

inf = float("inf")
for recipe, fault in (
    ("vae-mnist", OnSecond("loss", inf, "VAE", 12, 18)),
    ("infogan-mnist", OnSecond("norm", inf, "G", 13, 13)),
):
    tree = rollback.small(recipe)
    with rollback.planted(catalogue.find("model", tree["model"]["name"]), fault):
        limner.train(tree, out=f"{sys.argv[1]}/{recipe}")
dist.leave()
"""


@pytest.mark.slow
def test_all_ranks_go_back_together_if_one_meets_a_fault(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT / "benchmarks")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment() | {"LIMNER_DEVICES": "cpu,cpu", "PYTHONPATH": paths},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for recipe in ("vae-mnist", "infogan-mnist"):
        run = Run(tmp_path / recipe)
        assert [e["to"] for e in events(run, "rollback")] == [96]
        assert run.events()[-1]["event"] == "done"
        assert all_finite(tensors(run.path).values())


# ---- which checkpoint ------------------------------------------------------------------------------------------------


def rewritten(folder: Path, images: int, planned: bool, streak: float) -> None:
    """Another checkpoint of the same content at another image."""
    found = read(folder)
    found.trainer["update"]["streaks"]["VAE"] = torch.tensor(streak)
    model = limner.load(folder)
    state = found.state | {"images": images, "planned": planned}
    checkpoint.write(folder.with_name(f"{images:08d}"), model, found.trainer, state)


def test_the_healthy_checkpoint_is_the_newest_planned_one_without_skips(faults: ModuleType, tmp_path: Path) -> None:
    late = faults.Fault("loss", NAN, "VAE", 99, 99, 1)
    root = trained(faults, "vae-mnist", late, tmp_path / "run", images=48).checkpoints

    def healthy(since: int | None = None) -> int | None:
        found = rollback.last_healthy(root, since)
        return None if found is None else int(found.path.name)

    for images, planned, streak in ((96, True, 0.0), (144, False, 0.0), (192, True, 1.0)):
        rewritten(root / "00000048", images, planned, streak)
    assert healthy() == 96
    assert [healthy(since) for since in (96, 95, 47, 0)] == [96, 48, 0, 0]
    (root / "00000096" / "model.safetensors").write_bytes(b"damaged")
    assert healthy() == 48
    for folder in ("00000000", "00000048"):
        rewritten(root / folder, int(folder), False, 0.0)
    assert healthy() == 144, "one that an interruption wrote is better than none"
    rewritten(root / "00000144", 144, False, 2.0)
    assert healthy(since=-1) is None

    checkpoint.rewind(root, root / "00000144")
    assert [int(p.name) for p in folders(root)] == [0, 48, 96, 144]
    assert read_pointer(root, LATEST) == root / "00000144"


def test_a_checkpoint_is_finite_if_weights_averages_statistics_and_moments_are() -> None:
    def net(value: float = 1.0) -> Any:
        norm = torch.nn.BatchNorm1d(2)
        norm.running_mean.fill_(value)
        return norm

    def finite(model: Any, averaged: Any, moment: float = 1.0) -> bool:
        update = Updates({"N": model}, {"N": Adam()})
        update("N", model(torch.eye(2)).sum())
        update.optimisers["N"].state[model.bias]["exp_avg_sq"][1] = moment
        return rollback.is_finite(model, averaged, update, torch.device("cpu"))

    assert finite(net(), net())
    assert not finite(net(NAN), net())
    assert not finite(net(), net(INF))
    assert not finite(net(), net(), NAN)


def test_more_roll_backs_than_there_are_is_no_state_of_a_run(faults: ModuleType, tmp_path: Path) -> None:
    late = faults.Fault("loss", NAN, "VAE", 99, 99, 1)
    run = trained(faults, "vae-mnist", late, tmp_path / "run", images=48)
    found = read(run.latest)
    state = found.state | {"rollbacks": 4}
    checkpoint.write(run.latest, limner.load(run.latest), found.trainer, state)
    with pytest.raises(LimnerError, match="it was rolled back 4 times, and limner does it 3 times at most"):
        limner.resume(run.path, images=96)
