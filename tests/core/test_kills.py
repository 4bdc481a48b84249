"""A process that is killed at any moment leaves a run that goes on, with the checkpoints that any other run has."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.config.spec import Spec
from limner.core import durable
from limner.core.checkpoint import BEST, folders, mark_best, newest, prune, read_pointer, write
from limner.core.durable import replace_file, sweep
from limner.core.errors import LimnerError
from limner.core.run import Run

RECIPE = {"name": "vae-mnist", "train": {"images": 5}}
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process must be forked")


def killed(work: Callable[[], object], at: int, folder: Path) -> bool:
    """Does the work in a process that SIGKILL ends before its `at`-th operation on files; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = at

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in OPERATIONS and str(arguments[0]).startswith(str(folder)):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        code = 1
        try:
            sys.addaudithook(count)
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_training_begins_wherever_another_was_killed_while_it_began(tmp_path: Path) -> None:
    kills = 0
    while killed(partial(Run.create, RECIPE, tmp_path / str(kills)), kills, tmp_path):
        out = tmp_path / str(kills)
        kills += 1
        if (out / "recipe.yaml").exists():
            run = Run(out)
            run.sweep()
        else:
            run = Run.create(RECIPE, out)
        assert run.recipe == RECIPE
        assert set(names(out)) <= {"checkpoints", "lock", "recipe.yaml"}
    assert kills > 5


def model() -> Any:
    nets = {"encoder": {"name": "mlp.Encoder", "widths": [4], "heads": 2}, "decoder": {"name": "mlp.Decoder"}}
    spec = Spec.parse("model", {"name": "vae", "z": 2, **nets}).resolve(shape=(1, 4, 4), classes=0)
    built = spec.build()
    built.spec = spec
    return built


def save(root: Path, images: int, best: int, vae: Any, planned: bool = True) -> None:
    """What the trainer does at a checkpoint."""
    state = {"images": images, "best": {"images": best, "score": 1.0}, "planned": planned}
    write(root / f"{images:08d}", vae, {"moments": [torch.ones(3)]}, state)
    mark_best(root, best)
    prune(root, keep=2, milestones=0)


def copied(folder: Path, number: int) -> Path:
    return Path(shutil.copytree(folder / "begun", folder / str(number)))


def test_the_kept_checkpoints_are_the_same_wherever_a_process_was_killed(tmp_path: Path) -> None:
    """The third save makes 300 the best instead of 100, so that 100 and 200 have to go at the fourth."""
    vae, kills = model(), 0

    save(tmp_path / "begun", 100, 100, vae)
    save(tmp_path / "begun", 200, 100, vae)
    whole = Path(shutil.copytree(tmp_path / "begun", tmp_path / "whole"))
    save(whole, 300, 300, vae)
    save(whole, 400, 300, vae)
    while killed(partial(save, copied(tmp_path, kills), 300, 300, vae), kills, tmp_path):
        root = tmp_path / str(kills)
        kills += 1
        start, problems = newest(root)
        assert problems == []
        mark_best(root, int(start.state["best"]["images"]))
        prune(root, keep=2, milestones=0)  # as a resumed training does at first
        if start.state["images"] == 200:
            save(root, 300, 300, vae)
        assert names(root) == ["00000200", "00000300", "best", "latest"]
        assert read_pointer(root, BEST) == root / "00000300"
        save(root, 400, 300, vae)
        assert names(root) == names(whole)
    assert kills > 20


def test_what_an_interruption_saved_is_kept_until_the_next_checkpoint_only(tmp_path: Path) -> None:
    vae = model()
    for root, interruptions in ((tmp_path / "whole", []), (tmp_path / "stopped", [150, 210, 220, 390])):
        for images in sorted([100, 200, 300, 400, *interruptions]):
            save(root, images, 100, vae, planned=images not in interruptions)
            assert int(folders(root)[-1].name) == images
    assert (
        names(tmp_path / "whole")
        == names(tmp_path / "stopped")
        == ["00000100", "00000300", "00000400", "best", "latest"]
    )


def test_only_what_a_dead_process_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_lives", lambda pid: pid == 4321)
    kept = [".env.json.4321.tmp", ".hidden", "notes.tmp", ".nfs1234", ".x.tmp", "a.old"]
    swept = [".env.json.1234.tmp", f".latest.{os.getpid()}.tmp"]
    for name in kept + swept:
        (tmp_path / name).touch()
    (tmp_path / ".00000100.old").mkdir()
    (tmp_path / ".00000200.1234.tmp").mkdir()
    (tmp_path / ".00000200.1234.tmp" / "state.json").touch()
    sweep([tmp_path, tmp_path / "missing"])
    assert names(tmp_path) == sorted(kept)
    os.utime(tmp_path / kept[0], (0, 0))
    sweep([tmp_path])
    assert names(tmp_path) == sorted(kept[1:]), "after an hour the number is another process's"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1])
        raise OSError(28, "No space left on device")

    replace_file(tmp_path / "scores.json", b"old")
    monkeypatch.setattr(durable, "write_durably", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "scores.json", b"new")
    assert names(tmp_path) == ["scores.json"]
    assert (tmp_path / "scores.json").read_text() == "old"


def test_a_folder_of_the_users_is_never_taken(tmp_path: Path) -> None:
    for name, content in (("lock", b"my words"), ("photo.png", b""), ("checkpoints/mine", b""), (".notes.tmp", b"")):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        with pytest.raises(LimnerError, match="not an empty folder"):
            Run.create(RECIPE, folder)
        assert (folder / name).read_bytes() == content
        assert not (folder / "recipe.yaml").exists()
