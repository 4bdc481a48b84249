"""The report of a run, the page of a lab and the model card: their contents, private text that they must not show, and
damaged run folders. The run folder is written here, as training would leave it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.core.errors import LimnerError
from limner.report import Check, Figure, Section, Table, images, write, write_card, write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")

RECIPE = """\
name: gan-mnist
model:
  name: gan
  adversarial: nonsaturating
  G: {name: mlp.Generator, z: 100, hidden: [256, 512]}
  D: {name: mlp.Discriminator, hidden: [256]}
data: {name: folder, path: /home/alice/my photos/faces, size: 28}
optim:
  G: {lr: 2.0e-4, betas: [0.5, 0.999]}
  D: {lr: 2.0e-4, betas: [0.5, 0.999]}
train: {images: 160000, batch: 64, seed: 0}
"""
STEPS = [3200 * (2**i) for i in range(6)] + [128_000, 160_000]


def digits(n_rows: int = 8, columns: int = 8) -> np.ndarray:
    """A grid (28 rows, 28 columns) of real digits with 2 pixels between, uint8."""
    from sklearn.datasets import load_digits

    cells = load_digits().images[: n_rows * columns] * (255 / 16)
    cells = np.kron(cells, np.ones((3, 3)))
    cells = np.pad(cells, ((0, 0), (2, 4), (2, 4)))
    rows = [np.concatenate(list(cells[r * columns : (r + 1) * columns]), axis=1) for r in range(n_rows)]
    return np.concatenate(rows, axis=0).astype(np.uint8)


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def metric_line(images: int) -> dict[str, float | int | None]:
    t = images / 160_000
    noise = math.sin(images * 0.37) * 0.12 + math.sin(images * 1.91) * 0.08
    return {
        "images": images,
        "step": images // 64,
        "epoch": images / 5000,
        "seconds": images / 5200,
        "images_per_second": 5200 + 300 * noise - 400 * math.exp(-40 * t),
        "loss/G": None if images == 64_000 else 0.7 + 1.1 * t + noise,
        "loss/D": 1.38 * math.exp(-t) + noise * 0.6,
        "logit/real": 1.5 * t + noise,
        "logit/fake": -1.7 * t + noise,
        "grad/G": 40 * math.exp(-9 * t) * (1.1 + noise) + 0.02,
        "grad/D": 6 * math.exp(-5 * t) * (1.1 + noise) + 0.01,
        "term/r1": 0.02 + 0.01 * noise,
    }


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """``runs/0007-gan-mnist``, complete."""
    run = tmp_path / "runs" / "0007-gan-mnist"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    env = {
        "limner": "0.1.0",
        "python": "3.12.3",
        "torch": "2.13.0",
        "device": "cpu",
        "device_name": "Example CPU",
        "threads": 2,
        "platform": "Linux x86_64",
        "hostname": "alices-laptop",
        "executable": "/home/alice/.venv/bin/python",
    }
    (run / "env.json").write_text(json.dumps(env), encoding="utf-8")
    write_lines(run / "metrics.jsonl", [metric_line(i) for i in range(640, 160_001, 640)])  # type: ignore[misc]
    facts = {"data": "folder", "items": 5000, "shape": [1, 28, 28], "fingerprint": "ab12" * 16}
    events: list[dict[str, object]] = [
        {"event": "start", "images": 0, "seconds": 0.0, **facts, "parameters": {"G": 545_040, "D": 201_217}},
        {
            "event": "skip",
            "images": 0,
            "seconds": 0.1,
            "message": "skipped /home/alice/my photos/cat.png: </script><b>truncated",
        },
        *({"event": "checkpoint", "images": s, "seconds": s / 5200, "took": 0.21} for s in STEPS),
        {"event": "warning", "images": 64_000, "seconds": 12.3, "message": "loss/G was not finite once"},
        {"event": "done", "images": 160_000, "seconds": 31.5, "message": "finished"},
    ]
    write_lines(run / "events.jsonl", events)
    scores = {
        "psnr_db": {
            "value": 17.23,
            "unit": "dB",
            "on": "500 held-out images",
            "how": "mean over images of 10 log10(4/MSE)",
        },
        "test_elbo": {"value": -98.4, "unit": "nats", "on": "500 held-out images", "how": "one sample of z an image"},
        "auroc": {"value": None, "unit": "", "on": "class 9 held out", "how": "not measured: no image of that class"},
    }
    (run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    real = digits()
    save_image(run / "data" / "reals.png", real)
    rng = np.random.default_rng(0)
    for i, step in enumerate(STEPS):
        noise = rng.integers(0, 256, real.shape)
        clean = (i + 0.5) / len(STEPS)
        save_image(run / "samples" / f"{step:08d}.webp", (clean * real + (1 - clean) * noise).astype(np.uint8))
        top = digits(1, 12)
        blurred = (clean * top + (1 - clean) * 90).astype(np.uint8)
        save_image(run / "reconstructions" / f"{step:08d}.webp", np.concatenate([top, blurred]))
    return run


class Page(HTMLParser):
    """Every tag with its attributes, the text that a reader sees, and the data of the script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self._data = ""
        self.feed(html)
        self.data: Any = json.loads(self._data) if self._data else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "dt", "dd", "h2") else ""
        if tag in ("script", "style"):
            self._inside.append("data" if dict(attrs).get("id") == "page-data" else tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data
        elif self._inside[-1] == "data":
            self._data += data


def page_of(run_folder: Path) -> Page:
    return Page(write(run_folder).read_text("utf-8"))


def assert_self_contained(html: str) -> None:
    page = Page(html)
    policy = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]
    for tag, attrs in page.tags:
        assert (attrs.get("src") or "data:").startswith("data:"), tag
        assert (attrs.get("href") or "#").startswith(("#", "data:")), tag
        assert not {"srcset", "action", "onload", "onerror", "onclick", "style"} & set(attrs), tag
        assert tag not in ("iframe", "object", "embed", "base", "form")
    assert not re.search(r"https?://|@import|url\(", html)


def test_sections_are_in_order_and_say_what_the_files_say(run_folder: Path) -> None:
    path = write(run_folder)
    assert path == run_folder / "report.html"
    page = Page(path.read_text("utf-8"))
    rooms = [a["id"] for t, a in page.tags if t == "section"]
    assert rooms == ["scores", "samples", "reconstructions", "curves", "speed", "settings", "environment", "events"]
    text = " ".join(page.text.split())
    for expected in (
        "done 160,000 images seen 32 s 5,079 images/s",
        "PSNR 17.23 dB on 500 held-out images",
        "Test ELBO −98.4 nats",
        "AUROC –",
        "adversarial: nonsaturating",
        "limner train 0007-gan-mnist/recipe.yaml",
        "training 30 s 94.7 %",
        "Example CPU",
        "folder, 5,000 images, 1 × 28 × 28",
        "G 545,040, D 201,217",
    ):
        assert expected in text, expected


DOCTOR: dict[str, Any] = {
    "run": "0007-gan-mnist",
    "images": 160_000,
    "notes": ["one examination"],
    "findings": [
        {
            "check": "dropped_classes",
            "state": "fail",
            "sentence": "samples have no </script><b>3",
            "value": 0.01,
            "threshold": 0.25,
            "since": 60_000,
            "last_good": 51_200,
            "sheet": "samples/00102400.webp",
            "good_sheet": "../secret.png",
            "looks_like": ["collapse"],
            "remedies": [
                {"settings": {}, "text": "packs", "command": "limner train x", "bed": "toy-gan", "helped": 9, "of": 10}
            ],
        },
        {"check": "noise", "state": "unknown", "sentence": "needs more samples"},
        {"check": "blur", "state": "pass", "sentence": "sharp"},
    ],
}


def test_findings_come_first_with_what_helps(run_folder: Path) -> None:
    (run_folder / "doctor.json").write_text(json.dumps(DOCTOR), encoding="utf-8")
    path = write(run_folder)
    assert_self_contained(path.read_text("utf-8"))
    page = Page(path.read_text("utf-8"))
    assert next(a["id"] for t, a in page.tags if t == "section") == "findings"
    text = " ".join(page.text.split())
    for expected in (
        "Fails: dropped classes",
        "Samples have no </script><b>3 (threshold 0.25). It began at image 60,000. Checkpoint 51,200 is from before.",
        "What looks like it: collapse.",
        "Try packs: helped 9 of 10 seeds on toy-gan. limner train x",
        "unknown noise: needs more samples",
        "pass blur",
    ):
        assert expected in text, expected
    assert page.data["onsets"] == [{"name": "dropped_classes", "images": 60_000}]
    assert "Findings of the doctor: dropped\\_classes fails since image 60,000; 1 check passes" in card_of(run_folder)


def card_of(run_folder: Path) -> str:
    return write_card(run_folder).read_text("utf-8")


def test_a_damaged_diagnosis_is_left_out(run_folder: Path) -> None:
    (run_folder / "doctor.json").write_text(json.dumps(DOCTOR | {"findings": [{"check": 3}]}), encoding="utf-8")
    page = page_of(run_folder)
    assert "doctor.json is not what limner writes and was left out." in page.text
    assert page.data["onsets"] == []


def test_every_step_is_in_the_timeline_and_only_the_last_is_visible(run_folder: Path) -> None:
    page = page_of(run_folder)
    frames = [a for t, a in page.tags if t == "img" and "data-step" in a]
    assert [int(a["data-step"] or 0) for a in frames] == STEPS * 2  # samples, then reconstructions
    assert [int(a["data-step"] or 0) for a in frames if "hidden" not in a] == [STEPS[-1]] * 2
    assert page.data["steps"] == STEPS
    assert all(a["alt"] for a in frames)
    assert len([a for t, a in page.tags if t == "input" and a.get("type") == "range" and a["aria-label"]]) == 2


def test_curves_are_grouped_and_gaps_are_kept(run_folder: Path) -> None:
    charts = page_of(run_folder).data["charts"]
    assert [(c["prefix"], [s["name"] for s in c["curves"]]) for c in charts] == [
        ("loss", ["G", "D"]),
        ("logit", ["real", "fake"]),
        ("grad", ["G", "D"]),
        ("term", ["r1"]),
        ("speed", ["images/s"]),
    ]
    loss = charts[0]["curves"][0]
    assert loss["y"][loss["x"].index(64_000)] is None
    assert loss["gaps"] == 1
    assert [c["log"] for c in charts[:3]] == [False, False, True]  # only the gradient norms span three decades


def test_warnings_come_first(run_folder: Path) -> None:
    events = page_of(run_folder).text.split("Events")[-1]
    assert events.index("not finite once") < events.index("checkpoint")
    assert events.index("skipped") < events.index("start")


def test_page_is_self_contained(run_folder: Path) -> None:
    assert_self_contained(write(run_folder).read_text("utf-8"))


def test_text_from_files_cannot_become_markup(run_folder: Path) -> None:
    attack = "</script><script>document.title='x'</script><img src=x onerror=alert(1)>\"'"
    write_lines(run_folder / "events.jsonl", [{"event": attack, "message": attack, attack: attack}])
    write_lines(run_folder / "metrics.jsonl", [{"images": i, f"loss/{attack}": i, attack: 1.0} for i in range(3)])
    (run_folder / "scores.json").write_text(
        json.dumps({attack: {"value": 1, "unit": attack, "on": attack, "how": attack}})
    )
    (run_folder / "env.json").write_text(json.dumps({attack: attack}))
    (run_folder / "recipe.yaml").write_text(f"name: >-\n  {attack}\n# {attack}\n")
    (run_folder / "figures").mkdir()
    save_image(run_folder / "figures" / "a.png", np.zeros((4, 4), np.uint8))
    (run_folder / "figures" / "captions.json").write_text(json.dumps({"a": attack}))
    html = write(run_folder).read_text("utf-8")
    assert_self_contained(html)
    page = Page(html)
    assert [t for t, _ in page.tags].count("script") == 2  # the data and our own
    assert page.data["charts"][0]["curves"][0]["name"] == attack
    assert page.text.count("<img src=x onerror=alert(1)>") >= 6  # shown as what it is


def test_nothing_private_is_shown(run_folder: Path) -> None:
    text = write(run_folder).read_text("utf-8")
    assert "alice" not in text.lower()
    assert str(run_folder.parent) not in text
    assert "/home" not in text
    assert "…/faces" in text


FILES = ("recipe.yaml", "env.json", "metrics.jsonl", "events.jsonl", "scores.json", "data/reals.png")


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def truncate(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-9])


def fill(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(data) and None


def remove_all(run: Path) -> None:
    for path in [p for p in run.rglob("*") if p.is_file()]:
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        *(remove(name) for name in FILES),
        *(truncate(name) for name in FILES),
        *(fill(n, b"\xff\xfe\x00[null, {}]\n7\n") for n in ("recipe.yaml", "env.json", "metrics.jsonl", "scores.json")),
        fill("events.jsonl", b'{"event": null}\n[1]\n{"images": "x", "seconds": NaN}\nnull\n' + b"[" * 100_000 + b"\n"),
        fill(
            "metrics.jsonl", b'{"images": 1e400, "loss/G": 1}\n{"images": 3, "loss/G": "a", "loss/D": null, "x": [1]}\n'
        ),
        fill(
            "metrics.jsonl",
            b'{"images": 5, "loss/G": ' + b"9" * 400 + b', "seconds": -1}\n{"images": 6, "loss/G": Infinity}\n',
        ),
        fill("recipe.yaml", b"a: !!python/object/apply:os.system ['true']\n"),
        fill("samples/00003200.webp", b""),
        remove_all,
    ],
)
def test_a_damaged_run_still_has_a_page(run_folder: Path, damage: Callable[[Path], None]) -> None:
    damage(run_folder)
    assert_self_contained(write(run_folder).read_text("utf-8"))


def test_a_truncated_last_line_is_left_out(run_folder: Path) -> None:
    truncate("metrics.jsonl")(run_folder)
    page = page_of(run_folder)
    assert page.data["charts"][0]["curves"][0]["x"][-1] == 160_000 - 640
    assert "unreadable" not in page.text


def test_a_bad_line_in_the_middle_is_counted(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"images": 17\n')
        file.write(json.dumps(metric_line(160_640)) + "\n")
    page = page_of(run_folder)
    assert "metrics.jsonl: 1 unreadable line left out." in page.text
    assert page.data["charts"][0]["curves"][0]["x"][-1] == 160_640


def test_state_is_that_of_the_last_session(run_folder: Path) -> None:
    def state(*kinds: str) -> str:
        write_lines(run_folder / "events.jsonl", [{"event": k, "images": 1, "seconds": 1.0} for k in kinds])
        return page_of(run_folder).text.split("images seen")[0].split()[-2]

    assert state("start", "sample") == "interrupted"
    assert state("start", "stop") == "stopped"
    assert state("start", "stop", "resume") == "interrupted"
    assert state("start", "stop", "resume", "done") == "done"


def test_an_unreadable_sample_is_left_out_with_a_note(run_folder: Path) -> None:
    path = run_folder / "samples" / "00003200.webp"
    path.write_bytes(path.read_bytes()[:200])
    page = page_of(run_folder)
    assert "1 picture could not be read and was left out." in " ".join(page.text.split())
    assert 3200 in page.data["steps"]  # its reconstruction is still there


def test_a_large_run_stays_small(run_folder: Path) -> None:
    rng = np.random.default_rng(1)
    for step in range(1000, 181_000, 1000):  # noise does not compress: 180 pictures of 400 kB
        if step % 9000 == 0:
            save_image(run_folder / "samples" / f"{step:08d}.webp", rng.integers(0, 256, (370, 370, 3), dtype=np.uint8))
    for step in range(181_000, 281_000, 1000):
        (run_folder / "samples" / f"{step:08d}.webp").symlink_to(run_folder / "samples" / "00180000.webp")
    line = metric_line(64)
    with (run_folder / "metrics.jsonl").open("w") as file:
        for i in range(1, 20_001):
            line["images"] = 64 * i
            line["loss/G"] = 99.0 if i == 7_777 else -99.0 if i == 7_779 else i % 7
            file.write(json.dumps(line) + "\n")
    path = write(run_folder)
    assert path.stat().st_size < 15_000_000
    page = Page(path.read_text("utf-8"))
    steps = page.data["steps"]
    assert len(steps) <= images.MAX_STEPS
    assert (steps[0], steps[-1]) == (3200, 280_000)
    assert f"Shown are {len(steps)} of" in " ".join(page.text.split())
    curve = page.data["charts"][0]["curves"][0]
    assert len(curve["x"]) <= 2000
    assert {99.0, -99.0} <= set(curve["y"])
    assert curve["x"][-1] == 64 * 20_000


def test_the_page_is_replaced_atomically(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(run_folder).read_text("utf-8")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LimnerError, match=r"cannot write report\.html: No space left"):
        write(run_folder)
    assert (run_folder / "report.html").read_text("utf-8") == before
    assert not list(run_folder.glob(".report.html*"))


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="there is no run folder"):
        write(tmp_path / "nowhere")


# ---- pages of labs, and model cards


def test_a_lab_page_shows_its_sections(run_folder: Path, tmp_path: Path) -> None:
    png = run_folder / "data" / "reals.png"
    sections = [
        Section(
            "Numbers <1>",
            "First paragraph,\nstill the first.\n\nSecond & last.",
            checks=[Check("parameters", 218_643, 218_643, True), Check("PSNR", 17.0, 14.2345, False)],
        ),
        Section(
            "Codes", figures=[Figure(png, "by path", "digits"), Figure(png.read_bytes(), "by bytes", "digits again")]
        ),
        Section("Sizes", table=Table(["z", "PSNR"], [[2, 14.2], [32, None], ["all", True]])),
    ]
    path = write_page(tmp_path / "lab.html", "Lab 1", sections)
    html = path.read_text("utf-8")
    assert_self_contained(html)
    page = Page(html)
    text = " ".join(page.text.split())
    assert "1 of 2 checks agree" in text
    assert "parameters 218,643 218,643 agrees" in text
    assert "PSNR 17 14.23 differs" in text
    assert "Numbers <1>" in text
    assert "z PSNR 2 14.2 32 – all yes" in text
    assert [t for t, a in page.tags if a.get("class") == "prose"] == ["p", "p"]
    shown = [a for t, a in page.tags if t == "img"]
    assert [a["alt"] for a in shown] == ["digits", "digits again"]
    assert shown[0]["src"] == shown[1]["src"]


def test_an_unreadable_figure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="picture 1 of section 'A' cannot be read"):
        write_page(tmp_path / "x.html", "x", [Section("A", figures=[Figure(b"GIF89a", "c", "a")])])
    assert not (tmp_path / "x.html").exists()


def test_the_card_holds_the_facts_of_the_run(run_folder: Path) -> None:
    path = write_card(run_folder, "A game of two networks.")
    card = path.read_text("utf-8")
    assert path == run_folder / "README.md"
    for expected in (
        "# gan-mnist",
        "A game of two networks.",
        "- Size: 5,000 images",
        "ab12" * 16,
        "| PSNR | 17.23 dB | 500 held-out images |",
        'limner.load("0007-gan-mnist")',
        "Licence: not recorded",
        "- State: done after 160,000 images",
        "adversarial: nonsaturating",
    ):
        assert expected in card, expected
    assert "alice" not in card.lower()


def test_card_and_report_show_the_classes_and_what_was_left_out(tmp_path: Path) -> None:
    notes = ["found 40 images in 2 class folders", "left out 2 pictures of a format that is not read (.jp2 2)"]
    start = {"event": "start", "images": 0, "seconds": 0, "data": "photos", "classes": ["2", "10 <b>"], "notes": notes}
    write_lines(tmp_path / "events.jsonl", [start])
    card = write_card(tmp_path).read_text(encoding="utf-8")
    assert "- Classes by number: 0 `2`, 1 `10 <b>`" in card
    assert all(f"- {note}" in card for note in notes)
    page = write(tmp_path).read_text(encoding="utf-8")
    assert "0 2, 1 10 &lt;b&gt;" in page
    assert "; ".join(notes) in page


def test_card_and_report_say_what_the_model_is_and_how_it_draws(tmp_path: Path) -> None:
    sampling = {"steps": 20, "sampler": "dpm2m", "guidance": 1.5}
    start = {"event": "start", "images": 0, "seconds": 0, "family": "diffusion", "sampling": sampling}
    write_lines(tmp_path / "events.jsonl", [start | {"likelihood": "ODE or ELBO"}])
    save_image(tmp_path / "paths" / "00000064.webp", digits(2, 8))
    card = write_card(tmp_path).read_text(encoding="utf-8")
    page = write(tmp_path).read_text(encoding="utf-8")
    rows = {"Family": "diffusion", "Draws with": "steps 20, sampler dpm2m, guidance 1.5", "Likelihood": "ODE or ELBO"}
    for name, words in rows.items():
        assert f"- {name}: {words}" in card
        assert re.search(rf">{name}<.*>{words}<", page), name
    assert "From noise to images" in page
    assert page.count('data-frames="paths"') == 1
    start = {"event": "start", "images": 0, "seconds": 0}
    write_lines(tmp_path / "events.jsonl", [start | {"sampling": "all", "likelihood": None}])  # damaged
    assert "Draws with" not in write_card(tmp_path).read_text(encoding="utf-8")


def test_a_card_of_an_empty_folder_and_of_a_hostile_recipe(tmp_path: Path) -> None:
    (tmp_path / "0001-x").mkdir()
    assert "# x\n" in write_card(tmp_path / "0001-x").read_text("utf-8")
    (tmp_path / "0001-x" / "recipe.yaml").write_text('name: "<img src=x> [a](b)"\nmodel: {name: "``` x"}\n# ```\n')
    card = write_card(tmp_path / "0001-x").read_text("utf-8")
    assert card.startswith("# &lt;img src=x&gt; \\[a\\](b)\n")
    assert "````yaml\n" in card  # the fence is longer than the backticks inside


# ---- in a real browser: the script runs, and the URL selects the step


def dom(url: str, profile: Path) -> Page:
    """The page as it is after its scripts have run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [str(BROWSER), *options, "--virtual-time-budget=3000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return Page(done.stdout)


def visible(page: Page) -> list[int]:
    return [int(a["data-step"] or 0) for t, a in page.tags if t == "img" and "data-step" in a and "hidden" not in a]


@needs_browser
def test_the_script_runs_and_draws_every_curve(run_folder: Path, tmp_path: Path) -> None:
    page = dom(write(run_folder).as_uri(), tmp_path / "profile")
    assert page.tags[0][1].get("data-ready") == "1"
    lines = [a["d"] or "" for t, a in page.tags if t == "path" and (a.get("class") or "").startswith("line")]
    assert len(lines) == 8
    assert all(d.count("L") > 100 and "NaN" not in d for d in lines)
    assert lines[0].count("M") == 2  # the value that was not finite parts the curve
    assert visible(page) == [STEPS[-1]] * 2
    assert len([a for t, a in page.tags if t == "button" and "data-to" in a]) == len(STEPS)


@needs_browser
def test_every_chart_shows_where_a_trouble_begins(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "doctor.json").write_text(json.dumps(DOCTOR), encoding="utf-8")
    page = dom(write(run_folder).as_uri(), tmp_path / "profile")
    lines = [a for t, a in page.tags if t == "line" and a.get("class") == "onset"]
    assert len(lines) == 5
    assert all(46 < float(a["x1"] or 0) == float(a["x2"] or 0) for a in lines)
    assert page.text.count("dropped classes") >= 5 + 2  # beside the lines, in the strip and in the heading


@needs_browser
@pytest.mark.parametrize(("asked", "shown"), [(12_800, 12_800), (13_000, 12_800), (0, 3200), (10**9, 160_000)])
def test_the_url_selects_the_step(run_folder: Path, tmp_path: Path, asked: int, shown: int) -> None:
    page = dom(write(run_folder).as_uri() + f"#step={asked}", tmp_path / "profile")
    assert visible(page) == [shown] * 2
    assert f"after {shown:,} images" in page.text


@needs_browser
def test_an_empty_run_and_odd_curves_do_not_stop_the_script(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "metrics.jsonl").write_text(
        '{"images": 5, "loss/G": null, "same": 2.0, "loss/D": -1}\n'
        '{"images": 9, "loss/G": null, "same": 2.0, "loss/D": -1e30}\n'
    )
    for name in ("samples", "reconstructions"):
        shutil.rmtree(run_folder / name)
    page = dom(write(run_folder).as_uri(), tmp_path / "profile")
    assert page.tags[0][1].get("data-ready") == "1"
    bare = tmp_path / "bare"
    bare.mkdir()
    assert dom(write(bare).as_uri(), tmp_path / "profile").tags[0][1].get("data-ready") == "1"


@needs_browser
def test_one_slider_moves_all_and_charts_react_to_pointer_and_keys(run_folder: Path, tmp_path: Path) -> None:
    events = """<script>
      const slider = document.querySelectorAll(".control input")[1];
      slider.value = 0;
      slider.dispatchEvent(new Event("input"));
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      const plot = document.querySelector(".plot svg"), box = plot.getBoundingClientRect();
      plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left - 99, bubbles: true }));
      document.querySelector(".legend button").click();
    </script>"""
    changed = tmp_path / "changed.html"
    changed.write_text(write(run_folder).read_text("utf-8").replace("</body>", events + "</body>"), "utf-8")
    page = dom(changed.as_uri(), tmp_path / "profile")
    assert visible(page) == [STEPS[1]] * 2  # the other slider to the start, then one step by key
    assert page.text.count("at 640 images") == 5  # left of the first chart is the first value, read on every chart
    lines = [a for t, a in page.tags if t == "path" and (a.get("class") or "").startswith("line")]
    assert len(lines) == 7  # one curve was switched off, and what was read is still there
