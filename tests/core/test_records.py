"""The plain files of a run are checked where they are read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from limner.core import records
from limner.core.errors import LimnerError, LimnerWarning
from limner.core.records import parse_json
from limner.core.run import Run

RECIPE = {"name": "vae-mnist", "train": {"images": 5}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(RECIPE, out=tmp_path / "run")
    for images in (10, 20, 30):
        run.log({"images": images, "seconds": 1.0, "loss/D": 0.5})
        run.event("sample", images, 1.0, took=0.25)
    return run


NEVER_WRITTEN = [
    *(b"", b"{", b"[1,]", b"\xff{}", b"'a'", b"[" * 100_000, b'{"a": 1, "a": 1}', b"9" * 5000, b"1e999", b"9" * 17),
    b"[" * 33 + b"]" * 33,
]


@pytest.mark.parametrize("text", NEVER_WRITTEN)
def test_what_limner_never_writes_is_not_read(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reason is that of one of many
        parse_json(text)


def test_what_limner_writes_is_read() -> None:
    value = {"a": [1, 2.5, None, True, "é", {"b": {}}], "c": -(1 << 53)}
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b'{"a": NaN, "b": -Infinity}') == {"a": None, "b": None}


DAMAGED = [
    *(b"null", b"[]", b"3", b'"text"', b"{}", b'{"images": null}', b'{"images": -1}', b'{"images": 1.5}'),
    *(b'{"images": true}', b'{"images": 15, "seconds": "1"}', b'{"images": 15, "loss": []}', b'{"images": 1e400}'),
    *(b'{"images": 15, "seconds": -1}', b'{"images": 15, "loss": "\xff"}', b"\x00", b"[" * 100_000),
    b" " * (1 << 20) + b"{}",
]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_left_out_and_said_once(run: Run, line: bytes) -> None:
    file = run.path / "metrics.jsonl"
    first, second, third = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([first, line, second, line, third, b""]))
    with pytest.warns(LimnerWarning, match=r"metrics.jsonl: 2 damaged lines were left out"):
        assert [m["images"] for m in run.metrics()] == [10, 20, 30]
    with warnings.catch_warnings(action="error"):
        run.metrics()


def test_a_line_that_a_crash_cut_short_is_no_damage_and_swallows_no_other(run: Run) -> None:
    for name in ("metrics.jsonl", "events.jsonl"):
        with (run.path / name).open("a") as file:
            file.write('{"event": "sample", "images": 4')
    with warnings.catch_warnings(action="error"):
        assert (len(run.metrics()), len(run.events())) == (3, 3)
    run.event("resume", 30, 1.0)
    with pytest.warns(LimnerWarning, match="1 damaged line was left out"):
        assert [e["event"] for e in run.events()] == ["sample"] * 3 + ["resume"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[
            ("scores.json", c)
            for c in ("[]", "{", '{"fd": 3}', '{"fd": {"value": []}}', '{"fd": {"unit": "x"}}', "\x00")
        ],
        *[("scores.json", c) for c in ('{"fd": {"value": 1, "error": "x"}}', '{"fd": {"value": true}}', "[" * 9**5)],
        *[("env.json", c) for c in ("3", "null", '{"threads": "many"}', '{"threads": -1}', '{"device": {}}', "")],
        *[("figures/captions.json", c) for c in ("[]", '{"a": 1}')],
        *[("quarantine.json", c) for c in ("{}", '[["a"]]', '[["a", 1]]')],
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(run: Run, name: str, content: str) -> None:
    (run.path / "figures").mkdir()
    (run.path / name).write_text(content)
    with pytest.raises(LimnerError, match=r"is damaged \(.*\); delete it") as error:
        run.check()
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_an_honest_run_is_not_damaged(run: Run) -> None:
    score = {"value": 1.5, "unit": "", "on": "x", "error": None, "property": "quality", "better": "lower", "how": "y"}
    run.write_json("scores.json", {"fd": score, "verdict": {"value": "same"}, "elbo": {"value": None, "why": "no"}})
    run.write_json("quarantine.json", [["b/broken.jpg", "cut off"]])
    (run.path / "env.json").write_text('{"threads": 2, "device": "cpu", "platform": "x", "\\udcff": "\\ud800"}')
    with warnings.catch_warnings(action="error"):
        run.check()


def test_a_file_that_never_ends_is_not_read(run: Run) -> None:
    (run.path / "env.json").symlink_to("/dev/zero")
    (run.path / "metrics.jsonl").unlink()
    (run.path / "metrics.jsonl").symlink_to("/dev/zero")
    with pytest.raises(LimnerError, match=r"env.json is no file"):
        run.check()
    with pytest.raises(LimnerError, match=r"metrics.jsonl is no file"):
        run.metrics()


NO_FILES = ("metrics.jsonl", "events.jsonl", "lock", "checkpoints/best", "checkpoints/latest", "env.json")


@pytest.mark.parametrize("name", NO_FILES)
def test_a_folder_in_the_place_of_a_file_is_named(run: Run, name: str) -> None:
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    with pytest.raises(LimnerError, match=f"{name} is no file; delete it or restore it"):
        run.check()


def test_files_of_any_size_end_somewhere(run: Run) -> None:
    with pytest.raises(LimnerError, match="larger than 0 MB"):
        records.read_bytes(run.path / "recipe.yaml", limit=4)
