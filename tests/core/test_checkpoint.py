"""A checkpoint is complete or absent, damage is detected, and no file can run code."""

from __future__ import annotations

import hashlib
import json
import pickle  # noqa: TID251 - to write what must be refused
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from limner.config.load import load_model
from limner.config.spec import Spec
from limner.core import checkpoint
from limner.core.checkpoint import (
    BEST,
    LATEST,
    DamagedCheckpoint,
    folders,
    newest,
    pack,
    prune,
    read,
    read_pointer,
    unpack,
    write,
    write_pointer,
)
from limner.core.errors import LimnerError

VAE = {
    "name": "vae",
    "z": 2,
    "encoder": {"name": "mlp.Encoder", "widths": [4], "heads": 2},
    "decoder": {"name": "mlp.Decoder", "widths": [4]},
}


def model():
    spec = Spec.parse("model", VAE).resolve(shape=(1, 4, 4), classes=0)
    built = spec.build()
    built.spec = spec
    return built


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for images in (100, 200):
        write(
            tmp_path / "checkpoints" / f"{images:08d}",
            model(),
            {"moments": [torch.ones(3), {"n": 1}]},
            {"images": images},
        )
    return tmp_path / "checkpoints"


def test_what_is_written_is_read(root: Path) -> None:
    saved, problems = newest(root)
    assert (saved.state["images"], problems) == (200, [])
    assert torch.equal(saved.trainer["moments"][0], torch.ones(3))
    assert saved.trainer["moments"][1] == {"n": 1}
    assert (root / "latest").read_text() == "00000200"
    again = load_model(root / "00000200")
    assert all(torch.equal(v, saved.model[k]) for k, v in again.state_dict().items())
    assert torch.equal(load_model(root / "00000200" / "model.safetensors").sample(2, seed=0), again.sample(2, seed=0))


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "state.json", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "delete", "empty"])
def test_any_damage_is_detected_and_the_previous_one_used(root: Path, name: str, damage: str) -> None:
    file = root / "00000200" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes(
        {"flip": content, "cut": content[:-1], "grow": content + b" ", "empty": b"", "delete": b""}[damage]
    )
    if damage == "delete":
        file.unlink()
    if name == "MANIFEST.json" and damage == "grow":
        assert newest(root)[1] == [], "white space after a JSON document changes nothing"
        return
    saved, problems = newest(root)
    assert saved.state["images"] == 100
    assert "00000200 is damaged" in problems[0]
    with pytest.raises(LimnerError, match="damaged"):
        read(root / "00000200")


def test_no_usable_checkpoint_is_one_clear_line(root: Path) -> None:
    for folder in folders(root):
        (folder / "state.json").write_bytes(b"{}")
    with pytest.raises(LimnerError, match="no usable checkpoint"):
        newest(root)


def test_another_format_is_named(root: Path) -> None:
    manifest = json.loads((root / "00000200" / "MANIFEST.json").read_text())
    (root / "00000200" / "MANIFEST.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(LimnerError, match="has format 99, this limner reads format 1"):
        read(root / "00000200")
    saved, problems = newest(root)
    assert saved.state["images"] == 100
    assert "format 99" in problems[0]


@pytest.mark.parametrize("state", [b"[]", b"{}", b"null", b'{"trainer": {"$tensor": "nowhere"}}', b"[" * 100_000])
def test_a_forged_state_with_a_valid_hash_is_detected(root: Path, state: bytes) -> None:
    folder = root / "00000200"
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"]["state.json"] = {"sha256": hashlib.sha256(state).hexdigest(), "bytes": len(state)}
    (folder / "state.json").write_bytes(state)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpoint, match="not what limner writes"):
        read(folder)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def header(entries: dict[str, object], body: bytes, raw: str | None = None) -> bytes:
    text = (raw or json.dumps(entries)).encode()
    return struct.pack("<Q", len(text)) + text + body


F32 = {"dtype": "F32", "shape": [1]}
HOSTILE = {
    "pickle": pickle.dumps(Bomb()),
    "short": b"\x01",
    "huge header": struct.pack("<Q", 1 << 40) + b"{}",
    "not json": header({}, b"", "{"),
    "overlap": header({"a": F32 | {"data_offsets": [0, 4]}, "b": F32 | {"data_offsets": [0, 4]}}, b"0000"),
    "hole": header({"a": F32 | {"data_offsets": [4, 8]}}, b"0" * 8),
    "tail": header({"a": F32 | {"data_offsets": [0, 4]}}, b"0" * 8),
    "twice": header(
        {},
        b"0000",
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ),
    "wrong size": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"0000"),
    "deep": header({}, b"", "[" * 100_000),
    "list": header({}, b"", "[]"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_model_file_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(HOSTILE[kind])
    with pytest.raises(DamagedCheckpoint):
        load_model(file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('{"name": "os.system", "command": "touch pwned"}', "unknown model"),
        ('{"name": "vae", "__class__": "x"}', "unknown argument"),
        ("not json", "not JSON"),
        (None, "holds no limner model"),
        (json.dumps(VAE | {"shape": 3}), "unknown argument"),
    ],
)
def test_a_hostile_description_is_refused(tmp_path: Path, spec: str | None, message: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(save({"a": torch.zeros(1)}, {"spec": spec} if spec else {}))
    with pytest.raises(LimnerError, match=message):
        load_model(file)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(save({"a": torch.zeros(1)}, {"spec": model().spec.to_json()}))
    with pytest.raises(LimnerError, match="do not fit vae"):
        load_model(file)


def test_a_failing_disk_leaves_the_old_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(LimnerError, match="No space left on device; free some space"):
        write(root / "00000300", model(), {}, {"images": 300})
    monkeypatch.undo()
    assert newest(root)[0].state["images"] == 200
    assert sorted(p.name for p in root.iterdir()) == ["00000100", "00000200", "latest"]


def test_prune_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for images in range(100, 1100, 100):
        (tmp_path / f"{images:08d}").mkdir()
    (tmp_path / ".00000050.old").mkdir()
    prune(tmp_path, keep=2, milestones=500)
    assert [int(p.name) for p in folders(tmp_path)] == [500, 900, 1000]
    assert not list(tmp_path.glob(".*"))


def test_prune_spares_a_planned_one_beside_an_interim_one_and_the_start_is_no_milestone(
    tmp_path: Path,
) -> None:
    for images, planned in ((0, True), (500, True), (600, True), (650, False), (700, False)):
        (tmp_path / f"{images:08d}").mkdir()
        (tmp_path / f"{images:08d}" / "state.json").write_text(json.dumps({"planned": planned}))
    prune(tmp_path, keep=1, milestones=500)
    assert [int(p.name) for p in folders(tmp_path)] == [500, 600, 700]


def test_prune_spares_the_best_for_as_long_as_it_is_the_best(tmp_path: Path) -> None:
    for images in range(100, 700, 100):
        (tmp_path / f"{images:08d}").mkdir()
    write_pointer(tmp_path, BEST, tmp_path / "00000200")
    assert [int(p.name) for p in prune(tmp_path, keep=2, milestones=0)] == [100, 300, 400]
    assert [int(p.name) for p in folders(tmp_path)] == [200, 500, 600]
    assert read_pointer(tmp_path, BEST) == tmp_path / "00000200"
    write_pointer(tmp_path, LATEST, tmp_path / "00000700")
    assert read_pointer(tmp_path, LATEST) is None, "the folder is missing"
    write_pointer(tmp_path, BEST, tmp_path / "00000600")
    prune(tmp_path, keep=1, milestones=0)
    assert [int(p.name) for p in folders(tmp_path)] == [600]


def test_pack_is_inverted_by_unpack() -> None:
    tree = {"a": {"0": {"step": torch.tensor(3.0), "m": [torch.ones(2), None, "x"]}}, "b": [], "c": {}}
    tensors, skeleton = pack(tree)
    again = unpack(tensors, json.loads(json.dumps(skeleton)))
    assert torch.equal(again["a"]["0"]["m"][0], torch.ones(2))
    assert again["a"]["0"]["m"][1:] == [None, "x"]
    assert (again["b"], again["c"]) == ([], {})
