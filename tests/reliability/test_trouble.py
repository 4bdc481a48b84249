"""A full disk, values that are not finite, and hostile files."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import limner
from limner.core.checkpoint import FORMAT, MANIFEST, MODEL, folders, read_verified
from limner.core.errors import LimnerError
from limner.core.model import Data, Logs, Update
from limner.core.run import Run
from limner.core.update import all_finite
from limner.models.autoencoder import Autoencoder
from limner.models.gan import GAN

from .conftest import QUICK, call, tensors  # noqa: TID252 - tests are no package that could be imported by name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of two checkpoints. Copy it before changing anything."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return limner.train("ae-mnist", out=out, **QUICK | {"train.images": 80}).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ---- the disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_in_one_line_and_damages_nothing(run: Path) -> None:
    before = {f: read_verified(f) for f in folders(run / "checkpoints")}
    size = (Run(run).latest / MODEL).stat().st_size

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    done = call("resume", run, "images=400", preexec_fn=limit_file_size)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("limner: ")]
    assert len(errors) == 1
    assert "cannot write checkpoint" in errors[0]
    assert "Traceback" not in done.stderr
    assert {f: read_verified(f) for f in before} == before
    assert list((run / "checkpoints").glob(".*")) == []
    assert int(limner.resume(run, images=400).latest.name) == 400


# ---- numbers -------------------------------------------------------------------------------------------------------


def poisoned(step: Callable[..., Logs], group: str, at: int, poison: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The step with a changed loss of one group, from the `at`-th update of that group on."""
    calls = 0

    def poisoned_step(self: Any, data: Data, update: Update) -> Logs:
        def poisoned_update(name: str, loss: torch.Tensor) -> None:
            nonlocal calls
            calls += name == group
            update(name, poison(loss) if name == group and calls >= at else loss)

        poisoned_update.logs = getattr(update, "logs", {})  # type: ignore[attr-defined]
        return step(self, data, poisoned_update)

    return poisoned_step


def infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
    """A finite loss whose gradient is not: the root at 0."""
    return loss + (loss - loss.detach()).abs().sqrt()


@pytest.mark.parametrize("at", [1, 2, 7, 12])
@pytest.mark.parametrize(
    ("recipe", "model", "group", "poison"),
    [
        ("ae-mnist", Autoencoder, "AE", lambda loss: loss * float("nan")),
        ("ae-mnist", Autoencoder, "AE", infinite_gradient),
        ("gan-mnist", GAN, "D", lambda loss: loss * float("inf")),
        ("gan-mnist", GAN, "G", infinite_gradient),
    ],
    ids=["nan loss", "infinite gradient", "infinite loss of D", "infinite gradient of G"],
)
def test_numbers_that_are_not_finite_never_reach_the_weights(
    recipe: str,
    model: type,
    group: str,
    poison: Callable[[torch.Tensor], torch.Tensor],
    at: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "step", poisoned(model.step, group, at, poison))  # type: ignore[attr-defined]
    with pytest.raises(LimnerError, match="not finite") as error:
        limner.train(recipe, out=tmp_path / "run", **QUICK | {"train.images": 800})
    assert "\n" not in str(error.value)
    assert "learning rate" in str(error.value)
    for folder in folders(tmp_path / "run" / "checkpoints"):
        assert all_finite(limner.load(folder).state_dict().values())
    events = Run(tmp_path / "run").events()
    assert any(e["event"] == "skip" for e in events)
    stopped = next(e["images"] for e in events if e["event"] == "stop")
    assert stopped <= 8 * (at + 4), "three in a row at the next line of the log, one of which comes every three steps"


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics are not finite although all losses and gradients are; the checkpoint of step 10 is not written."""
    step, calls = Autoencoder.step, 0

    def poisoned_step(self: Any, data: Data, update: Update) -> Logs:
        nonlocal calls
        calls += 1
        logs = step(self, data, update)
        if calls == 8:
            self.prior.mean.fill_(float("inf"))
        return logs

    monkeypatch.setattr(Autoencoder, "step", poisoned_step)
    with pytest.raises(LimnerError, match="not finite"):
        limner.train("ae-mnist", out=tmp_path / "run", **QUICK | {"train.images": 800})
    assert [int(p.name) for p in folders(tmp_path / "run" / "checkpoints")] == [40]


def test_one_bad_batch_is_skipped_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def once(loss: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss * float("nan") if calls == 5 else loss

    monkeypatch.setattr(Autoencoder, "step", poisoned(Autoencoder.step, "AE", 1, once))
    run = limner.train("ae-mnist", out=tmp_path / "run", **QUICK | {"train.images": 160})
    assert all_finite(tensors(run.path).values())
    assert [e["total"] for e in run.events() if e["event"] == "skip"][-1] == 1
    assert run.events()[-1]["event"] == "done"


def test_a_wild_learning_rate_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"optim\.AE\.lr=1e\+29"):
        limner.train("ae-mnist", out=tmp_path / "run", **QUICK | {"train.images": 4000, "optim.AE.lr": 1e30})


# ---- hostile files -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_version_is_named(run: Path) -> None:
    for folder in folders(run / "checkpoints"):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(manifest | {"format": FORMAT + 1}))
    with pytest.raises(LimnerError, match=f"format {FORMAT + 1}, this limner reads format {FORMAT}"):
        limner.resume(run, images=160)
    with pytest.raises(LimnerError, match=f"format {FORMAT + 1}"):
        limner.load(Run(run).latest)


class Bomb:
    """Pickled, it writes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.marker}",))


def header(tree: Any, data: bytes = b"") -> bytes:
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile(kind: str, marker: Path) -> bytes:
    """The bytes of a hostile ``model.safetensors``."""
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    spec = {"name": "os.system", "command": f"touch {marker}"}
    match kind:
        case "pickle":
            import pickle  # noqa: TID251 - to attack with

            return pickle.dumps(Bomb(marker))
        case "torch zip":
            path = marker.with_suffix(".pt")
            torch.save({"w": Bomb(marker)}, path)
            return path.read_bytes()
        case "duplicate keys":
            text = json.dumps(one)
            return header(f'{{"w": {text}, "w": {text}}}'.encode(), b"\0" * 4)
        case "overlapping offsets":
            return header({"a": one, "b": one}, b"\0" * 4)
        case "hole between tensors":
            return header({"a": one, "b": one | {"data_offsets": [8, 12]}}, b"\0" * 12)
        case "huge header":
            return header(b" " * (2 << 20) + b"{}")
        case "header longer than the file":
            return struct.pack("<Q", 1 << 60) + b"{}"
        case "deep header":
            return header(b"[" * 100_000)
        case "upward path as a tensor":
            return header({"../../evil": one, "__metadata__": {"spec": json.dumps(spec)}}, b"\0" * 4)
        case "a function as the model":
            return header({"__metadata__": {"limner": "1", "spec": json.dumps(spec)}})
        case "a module path as a net":
            net = {"name": "autoencoder", "encoder": spec, "decoder": {"name": "builtins.exec"}}
            return header({"__metadata__": {"limner": "1", "spec": json.dumps(net)}})
    raise AssertionError(kind)


KINDS = (
    "pickle",
    "torch zip",
    "duplicate keys",
    "overlapping offsets",
    "hole between tensors",
    "huge header",
    "header longer than the file",
    "deep header",
    "upward path as a tensor",
    "a function as the model",
    "a module path as a net",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_checkpoint_executes_nothing(kind: str, run: Path, tmp_path: Path) -> None:
    """The file is loaded alone, and inside a run whose manifest has its hash."""
    import hashlib

    marker = tmp_path / "marker"
    content = hostile(kind, marker)
    alone = tmp_path / MODEL
    alone.write_bytes(content)
    with pytest.raises(LimnerError):
        limner.load(alone)
    for folder in folders(run / "checkpoints"):
        (folder / MODEL).write_bytes(content)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][MODEL] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(LimnerError) as error:
        limner.resume(run, images=160)
    assert "\n" not in str(error.value)
    assert not marker.exists()
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "text",
    [
        'model: !!python/object/apply:os.system ["touch MARKER"]',
        'model: {name: vae, z: !!python/object/new:os.system ["touch MARKER"]}',
        'model: {name: os.system, command: "touch MARKER"}',
        'model: {name: autoencoder, encoder: {name: subprocess.call, args: ["touch", "MARKER"]}}',
        'model: {_target_: os.system, command: "touch MARKER"}',
    ],
)
def test_a_hostile_recipe_executes_nothing(text: str, tmp_path: Path) -> None:
    marker, recipe = tmp_path / "marker", tmp_path / "evil.yaml"
    sections = "data: {name: digits}\noptim: {AE: {}}\ntrain: {images: 64}\n"
    recipe.write_text(f"{text.replace('MARKER', str(marker))}\n{sections}")
    with pytest.raises(LimnerError) as error:
        limner.train(recipe, out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


def test_a_run_folder_cannot_carry_code(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (run / "recipe.yaml").write_text(f'model: !!python/object/apply:os.system ["touch {marker}"]\n')
    with pytest.raises(LimnerError):
        limner.resume(run)
    assert not marker.exists()
