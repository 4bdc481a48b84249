"""The training loop with unusual data, bfloat16 and a time limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import limner
from limner.core.checkpoint import folders, read
from limner.core.errors import LimnerError
from limner.core.grid import make_grid
from limner.core.progress import Meters, Silent
from limner.core.update import all_finite

QUICK = {"batch": 8, "samples": 4, "device": "cpu", "threads": 1, "checkpoint_images": 1_000_000}
NARROW = {"model.G.width": 8, "model.D.width": 8}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty pictures of 37x53 in two classes, in the mode a test asks for."""
    return tmp_path / "photos"


def fill(folder: Path, mode: str, size: tuple[int, int] = (53, 37)) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 256, (size[1], size[0], len(Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
        Image.fromarray(values.squeeze(), mode if mode != "L" else None).save(folder / "ab"[i % 2] / f"{i}.png")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_any_channels_and_any_aspect(photos: Path, mode: str, channels: int, tmp_path: Path) -> None:
    fill(photos, mode)
    options = QUICK | NARROW | {"data": str(photos), "data.size": [37, 53], "data.channels": channels, "images": 24}
    run = limner.train("dcgan-32", out=tmp_path / "run", **options)
    model = limner.load(run.latest)
    assert model.sample(3, seed=0).shape == (3, channels, 37, 53)
    assert len(run.samples()) >= 2


def test_mixed_sizes_and_a_bad_file_are_reported(photos: Path, tmp_path: Path) -> None:
    fill(photos, "RGB")
    Image.new("RGB", (90, 40)).save(photos / "a" / "wide.png")
    (photos / "b" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    messages: list[str] = []

    class Listener(Silent):
        def say(self, message: str) -> None:
            messages.append(message)

    options = QUICK | {"data": str(photos), "size": 16, "images": 24}
    run = limner.train("vae-mnist", out=tmp_path / "run", progress=Listener(), **options)
    assert any("2 class" in s for s in messages)
    assert any("left out 1 bad file" in s for s in messages)
    assert run.read_json("quarantine.json")[0][0] == "b/broken.jpg"


@pytest.mark.parametrize("name", ["vae-mnist", "gan-mnist", "conv-ae-mnist"])
def test_bfloat16_keeps_float32_weights_and_learns(name: str, tmp_path: Path) -> None:
    options = QUICK | {"precision": "bf16-emulated", "images": 1600, "batch": 32, "data": "mnist-5k", "log_images": 160}
    run = limner.train(name, out=tmp_path / "run", **options)
    weights = limner.load(run.latest).state_dict()
    assert all(w.dtype in (torch.float32, torch.int64) for w in weights.values())
    assert all_finite(weights.values())
    lines = run.metrics()
    if name != "gan-mnist":
        key = next(k for k in lines[0] if k.startswith("loss/"))
        assert lines[-1][key] < 0.8 * lines[0][key]


def test_bfloat16_is_refused_where_it_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On x86 without AVX-512 BF16 and AMX: a line that names the ways out; a warning where one insists or resumes."""
    has = {"avx512_bf16": False, "amx_tile": False}
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has["avx512_bf16"])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has["amx_tile"])
    options = QUICK | {"data": "digits", "images": 64}
    for start in (limner.train, limner.api.dry_run):
        with pytest.raises(LimnerError, match=r"no instructions for bfloat16.*=fp32.*=bf16-emulated") as refused:
            start("ae-mnist", precision="bf16", **options)
        assert "\n" not in str(refused.value)

    def warnings(run: limner.Run) -> list[str]:
        return [e["message"] for e in run.events() if e["event"] == "warning" and "emulated" in e["message"]]

    run = limner.train("ae-mnist", out=tmp_path / "insists", precision="bf16-emulated", **options)
    assert len(warnings(run)) == 1
    for kind in has:
        has.update(dict.fromkeys(has, False) | {kind: True})
        run = limner.train("ae-mnist", out=tmp_path / kind, precision="bf16", **options)
        assert warnings(run) == []
    has.update(dict.fromkeys(has, False))
    run = limner.resume(run.path, images=128)
    assert len(warnings(run)) == 1, "a run that began elsewhere goes on"


def test_the_time_limit_ends_a_training_that_resume_continues(tmp_path: Path) -> None:
    options = QUICK | {"data": "digits", "images": 10_000_000, "time": "0.4s"}
    run = limner.train("ae-mnist", out=tmp_path / "run", **options)
    images = int(run.latest.name)
    assert 0 < images < 10_000_000
    assert run.events()[-1]["message"] == "the time limit was reached"
    assert int(limner.resume(run.path).latest.name) > images


def test_points_are_learned_and_plotted(tmp_path: Path) -> None:
    options = QUICK | {"data": "ring", "images": 160, "model.G.out": "linear"}
    run = limner.train("gan-mnist", out=tmp_path / "run", **options)
    assert limner.load(run.path).sample(5).shape == (5, 2, 1, 1)
    assert Image.open(run.samples()[-1][1]).size == (256, 256)


def test_logs_grids_and_checkpoints_are_written_when_their_multiples_are_passed(tmp_path: Path) -> None:
    """Batches of 10 images: multiples of 24 are passed at 30, 50, 80, …; two checkpoints are kept, and milestones."""
    every = {"log_images": 24, "sample_images": 80, "checkpoint_images": 40, "keep": 2, "milestone_images": 120}
    options = QUICK | {"data": "digits", "batch": 10, "images": 240} | every
    run = limner.train("ae-mnist", out=tmp_path / "run", **options)
    assert [line["images"] for line in run.metrics()] == [30, 50, 80, 100, 120, 150, 170, 200, 220, 240]
    assert [images for images, _ in run.samples()] == [0, 80, 160, 240]
    assert [e["images"] for e in run.events() if e["event"] == "checkpoint"] == [40, 80, 120, 160, 200, 240]
    assert [int(p.name) for p in folders(run.checkpoints)] == [120, 200, 240]


def test_the_averaged_weights_are_used_and_the_raw_ones_trained(tmp_path: Path) -> None:
    options = QUICK | {"data": "digits", "images": 160, "seed": 3}
    plain = limner.train("gan-mnist", out=tmp_path / "plain", ema_images=0, **options)
    run = limner.train("gan-mnist", out=tmp_path / "averaged", ema_images=64, **options)
    saved, raw = read(run.latest), read(plain.latest).model
    assert saved.trainer["model"].keys() == raw.keys()
    assert all(torch.equal(w, raw[k]) for k, w in saved.trainer["model"].items()), "averaging changes no training"
    weights = dict(limner.load(run.latest).named_parameters())
    assert all(torch.equal(saved.model[k], w) for k, w in weights.items())
    assert any(k.startswith("G.") for k in weights)
    for k in weights:
        assert torch.equal(saved.model[k], raw[k]) == k.startswith("D."), k
    grid = run.samples()[-1][1]
    assert Image.open(grid).convert("L").tobytes() == make_grid(limner.load(run.latest).sample(4, seed=3), 2).tobytes()


@pytest.mark.parametrize("name", ["dcgan-32", "conv-ae-mnist"])
def test_previews_and_scores_do_not_change_a_training(name: str, tmp_path: Path) -> None:
    """Grids, scores, checkpoints and examinations do not change the mode, the statistics or the noise."""
    options = QUICK | {"data": {"name": "mnist-5k", "size": 16, "limit": 64}, "images": 40, "deterministic": True}
    options |= NARROW if name == "dcgan-32" else {"model.decoder": {"name": "conv.NearestDecoder"}}
    seldom = {"sample_images": 1_000_000, "doctor": False}
    often = {"sample_images": 8, "checkpoint_images": 8, "score_images": 16, "doctor_images": 8}
    runs = [limner.train(name, out=tmp_path / str(i), **options | o) for i, o in enumerate((seldom, often))]
    a, b = (read(run.latest).trainer["model"] for run in runs)
    assert any("running_mean" in k for k in a)
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert [len(run.checks()) for run in runs] == [0, 5]


def test_meters_are_means() -> None:
    meters = Meters()
    assert meters.take() == {}
    for value in (1.0, 2.0, 6.0):
        meters.add({"loss/G": torch.tensor(value)})
    assert meters.take() == {"loss/G": 3.0}
    assert meters.take() == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae-mnist", "conv-ae-mnist", "dcgan-mnist"])
def test_the_nets_compile_whole(name: str) -> None:
    """A forward pass has no graph break, and compiled it gives the same values."""
    from limner.config import recipe as recipes

    model = recipes.load(name).model.build(shape=(1, 28, 28), classes=10).eval()
    net = model.G if hasattr(model, "G") else model.encoder
    x = torch.randn(4, model.G.z) if hasattr(model, "G") else torch.randn(4, 1, 28, 28)
    compiled = torch.compile(net, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
