"""The run folder is the API."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import limner
from limner.config.spec import Spec
from limner.core import checkpoint
from limner.core.batch import to_float, to_uint8
from limner.core.ema import EMA
from limner.core.errors import LimnerError, LimnerWarning
from limner.core.grid import make_grid
from limner.core.run import Run

RECIPE = {"name": "vae-mnist", "train": {"images": 5}}


def test_runs_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    a, b = Run.create(RECIPE, root=tmp_path), Run.create(RECIPE, root=tmp_path)
    assert (a.name, b.name) == ("0001-vae-mnist", "0002-vae-mnist")
    assert a.recipe == RECIPE
    with pytest.raises(LimnerError, match="holds a run already"):
        Run.create(RECIPE, out=a.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").touch()
    with pytest.raises(LimnerError, match="not an empty folder"):
        Run.create(RECIPE, out=tmp_path / "full")
    with pytest.raises(LimnerError, match="not a run folder"):
        Run(tmp_path)
    with pytest.raises(LimnerError, match="no checkpoint yet"):
        _ = a.latest


def test_a_truncated_line_hides_no_other_line(tmp_path: Path) -> None:
    run = Run.create(RECIPE, root=tmp_path)
    lines = ['{"images": 1}', '{"images": 2, "loss', '{"images": 3}', '{"images": 4']
    (run.path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.warns(LimnerWarning, match="1 damaged line was left out"):
        assert [m["images"] for m in run.metrics()] == [1, 3]


def hold(path: Path, ready: object, done: object) -> None:
    run = Run(path)
    run.lock()
    ready.set()
    done.wait(30)


def test_one_writer_at_a_time_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    run = Run.create(RECIPE, out=tmp_path / "r")
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(run.path, ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(LimnerError, match="in use by another process"):
        run.lock()
    other.kill()
    other.join()
    run.lock()
    run.unlock()


def test_metrics_survive_a_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = Run.create(RECIPE, out=tmp_path / "r")
    for images in (10, 20, 30):
        run.log({"images": images, "loss/D": float("nan") if images == 20 else 1.5})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"images": 40, "lo')
    assert [m["loss/D"] for m in run.metrics()] == [1.5, None, 1.5]
    run.rewind(images=20, logged=20)
    assert [m["images"] for m in run.metrics()] == [10, 20]


def test_saved_images_are_exact(tmp_path: Path) -> None:
    for channels, mode in ((1, "L"), (2, "RGBA"), (3, "RGB"), (4, "RGBA")):
        x = to_float(torch.randint(0, 256, (5, channels, 4, 6), dtype=torch.uint8))
        image = make_grid(x, 3, gap=1)
        assert (image.size, image.mode) == ((3 * 7 - 1, 2 * 5 - 1), mode)
        tile = torch.tensor(list(image.crop((7, 5, 13, 9)).get_flattened_data()))
        expected = to_uint8(x)[4].flatten(1).T
        if mode == "L":
            assert torch.equal(tile, expected[:, 0].long())
        elif channels == 3:
            assert torch.equal(tile, expected.long())
    run = Run.create(RECIPE, out=tmp_path / "r")
    x = to_float(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8))
    path = run.save_grid("samples/00000010.webp", x, 2)
    assert Image.open(path).convert("L").tobytes() == make_grid(x, 2).tobytes()
    assert run.samples() == [(10, path)]
    assert make_grid(torch.randn(9, 2, 1, 1), 3).size == (256, 256)


def test_the_average_halves_in_its_half_life() -> None:
    spec = Spec.parse("model", {"name": "gan", "G": {"name": "mlp.Decoder", "z": 2}, "D": "mlp.Discriminator"})
    model = spec.build(shape=(1, 4, 4), classes=0)
    ema = EMA(model, half_life=640)
    start = model.G.head.bias.detach().clone()
    with torch.no_grad():
        model.G.head.bias += 1
        model.D.head.bias += 1
    for _ in range(10):
        ema.update(64)
    averaged = ema.averaged_model()
    torch.testing.assert_close(averaged.G.head.bias, start + 0.5)
    ema.update(320), ema.update(320)  # steps of five batches: the same half-life in images
    torch.testing.assert_close(ema.averaged_model().G.head.bias, start + 0.75)
    assert torch.equal(averaged.D.head.bias, model.D.head.bias), "only what sampling uses is averaged"


@pytest.mark.parametrize(("rules", "counted"), [(2, 80), (1, 16)])
def test_a_run_keeps_the_rules_that_it_began_with(
    rules: int, counted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of WGAN takes five batches of 16. A run of before, whose state has no rules, goes on counting one."""
    options = {"data": "digits", "n_critic": 5, "batch": 16, "ema_images": 100, "samples": 1, "device": "cpu"}
    run = limner.train("wgan-mnist", out=tmp_path / "run", images=80, D={"name": "mlp.Discriminator"}, **options)
    newest, moved, images = checkpoint.newest, EMA.update, list[int]()

    def newest_of_before(root: Path) -> Any:
        start, problems = newest(root)
        assert start.state.pop("rules") == 2
        return start, problems

    monkeypatch.setattr(EMA, "update", lambda ema, n, seen: (images.append(n), moved(ema, n, seen)))
    with pytest.MonkeyPatch.context() as patch:
        if rules == 1:
            patch.setattr(checkpoint, "newest", newest_of_before)
        limner.resume(run.path, images=160)
    run = limner.resume(run.path, images=240)
    assert images == [counted] * 2
    assert checkpoint.read(run.latest).state["rules"] == rules


def test_runs_are_numbered_in_a_folder_that_need_not_exist(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    assert [Run.create({"name": "vae"}, root=root).name for _ in range(2)] == ["0001-vae", "0002-vae"]
