"""Files of others: what is read and what is refused; nothing in them can run, or fill the machine."""

from __future__ import annotations

import argparse
import io
import pickle  # noqa: TID251 - to make files that must be refused
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limner.core import foreign, weights
from limner.core.errors import LimnerError

STATE = {"net.0.weight": torch.arange(36.0).view(4, 3, 3), "net.0.bias": torch.ones(4)}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


class Payload:
    """A pickle that would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.marker,))


def test_state_dicts_of_all_formats_and_wrappers_are_read(tmp_path: Path) -> None:
    """One process converts all of them."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    wrapped = {f"module.{k}": t for k, t in STATE.items()}
    files = [
        saved(tmp_path / "new.pth", STATE),
        saved(tmp_path / "old.pth", STATE, _use_new_zipfile_serialization=False),
        saved(tmp_path / "parallel.model", wrapped),
        saved(tmp_path / "trained.ckpt", {"epoch": 3, "state_dict": wrapped, "optimizer": optimizer}),
        saved(tmp_path / "deep.pt", {"nets": {"model": {k: nn.Parameter(t) for k, t in STATE.items()}}}),
    ]
    save_file({f"_orig_mod.{k}": t for k, t in STATE.items()}, tmp_path / "w.safetensors")
    (tmp_path / "renamed.pth").write_bytes((tmp_path / "w.safetensors").read_bytes())
    for result in weights.read_all([*files, tmp_path / "w.safetensors", tmp_path / "renamed.pth"]):
        assert sorted(result.tensors) == sorted(STATE)
        for name, tensor in STATE.items():
            assert torch.equal(result.tensors[name], tensor)
        assert len(result.digits) == 8


def test_one_of_several_nets_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "gan.pth", {"G": STATE, "G_ema": {k: 2 * t for k, t in STATE.items()}, "step": 3})
    with pytest.raises(LimnerError, match="holds several nets; name one: part=G or G_ema"):
        weights.read(file)
    assert torch.equal(weights.read(file, "G_ema").tensors["net.0.bias"], 2 * torch.ones(4))
    save_file({f"{p}.{k}": t.clone() for k, t in STATE.items() for p in "GD"}, tmp_path / "both.safetensors")
    assert sorted(weights.read(tmp_path / "both.safetensors", "G").tensors) == sorted(STATE)
    with pytest.raises(LimnerError, match="has no part 'E'"):
        weights.read(tmp_path / "both.safetensors", "E")


def bomb(path: Path, compressed: bool = False, members: int = 1, name: str = "a/data.pkl") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, pickle.dumps({}))
        for i in range(members):
            archive.writestr(f"a/data/{i}", b"\0" * 4096)
    return path


def hostile(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Contents of files, and what is said of them; none of them reaches the process that unpickles."""
    buffer, legacy = io.BytesIO(), io.BytesIO()
    torch.save(STATE, buffer)
    torch.save(STATE, legacy, _use_new_zipfile_serialization=False)
    whole = io.BytesIO()
    torch.save(nn.Linear(2, 2), whole)
    contents = {
        "module.pth": (whole.getvalue(), r"cannot be read safely.*torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"),
        "payload.pth": (pickle.dumps(Payload(folder / "marker")), "cannot be read safely.*touch|getattr"),
        "objects.pkl": (pickle.dumps({"G": argparse.Namespace(a=1)}), r"argparse\.Namespace"),
        "marks.pth": (legacy.getvalue()[:30] + b"(" * 3_000_000, "damaged or no state dict"),
        "long.pth": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x8d" + b"\xff" * 8, "damaged or no state dict"),
        "cut.pth": (buffer.getvalue()[:-60], "damaged archive"),
        "compressed.pth": (bomb(folder / "b", compressed=True).read_bytes(), "compressed or overlapping"),
        "members.pth": (bomb(folder / "b", members=20_001).read_bytes(), "archive"),
        "photos.pth": (bomb(folder / "b", name="photos/1.jpg").read_bytes(), r"torch\.save did not write"),
        "script.pth": (bomb(folder / "b", name="a/constants.pkl").read_bytes(), "TorchScript"),
        "page.pth": (b"<!DOCTYPE html><html>", "a web page"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        "keras.pth": (b"\x89HDF\r\n", "HDF5"),
        "empty.pth": (b"", "is empty"),
        "noise.pth": (b"no pickle", "can be read safely"),
    }
    for kind, tensor in {
        "sparse": torch.eye(2).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "quantised": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    }.items():
        one = io.BytesIO()
        torch.save({"a.weight": tensor}, one)
        contents[f"{kind}.pth"] = (one.getvalue(), f"holds {kind} tensors")
    return contents


@pytest.mark.filterwarnings("ignore")
def test_hostile_and_mistaken_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    started = time.process_time()
    for name, (content, match) in hostile(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LimnerError, match=match) as error:
            weights.read(tmp_path / name)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 320
    with (tmp_path / "zeros.safetensors").open("wb") as stream:
        stream.truncate(1 << 41)  # a file of holes: it takes no space, and would take all memory
    with pytest.raises(LimnerError, match="is no whole"):
        weights.read(tmp_path / "zeros.safetensors")
    assert not (tmp_path / "marker").exists()
    assert time.process_time() - started < 60


def test_tensors_that_only_claim_to_be_large_and_odd_names_are_refused(tmp_path: Path) -> None:
    """These pass the first look; the process with limits refuses them."""
    doll: dict[str, object] = {}
    for _ in range(4):
        doll = {f"k{i}": doll for i in range(1000)}  # as many paths as 1000 to the fourth
    contents: dict[str, tuple[object, str]] = {
        "expanded": ({"w": torch.zeros(1).expand(1 << 34)}, "larger than the file"),
        "many": ({f"w{i}": torch.zeros(1).expand(1 << 18) for i in range(9)}, "larger than the file"),
        "long": ({"9" * 5000 + ".weight": torch.zeros(2)}, "a name of 5,007 characters"),
        "escape": ({"a\x1b[31mb": torch.zeros(2)}, "unprintable"),
        "nested": (doll, "no state dict of one net"),
        "number": ({"a": 1}, "no state dict of one net"),
        "tensor": (torch.zeros(2), "no state dict of one net"),
        "optimiser": ({"state": {}, "param_groups": [], "w": torch.zeros(2)}, "no state dict of one net"),
        "bytes": ({"w": torch.zeros(2, dtype=torch.int16)}, "save it as float32"),
        "nan": ({"w": torch.tensor([torch.nan])}, "not finite"),
    }
    files = {name: saved(tmp_path / f"{name}.pth", content) for name, (content, _) in contents.items()}
    results = foreign.convert(list(files.values()), tmp_path)
    for (_name, (_, match)), file, found in zip(contents.items(), files.values(), results, strict=True):
        with pytest.raises(LimnerError, match=match) as error:
            weights._tensors(file, found, None)
        assert str(error.value).isprintable()


def test_no_damage_to_a_file_ends_in_a_traceback_or_a_hang(tmp_path: Path) -> None:
    """240 mutants: bytes flipped, cut, doubled and overwritten, in both formats of pickles and in safetensors."""
    rng = random.Random(0)
    buffers = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        buffers.append(io.BytesIO())
        torch.save(STATE, buffers[-1], **options)
    save_file(STATE, tmp_path / "w.safetensors")
    originals = [*(b.getvalue() for b in buffers), (tmp_path / "w.safetensors").read_bytes()]
    files = []
    for number in range(240):
        content = bytearray(originals[number % 3])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(min(len(content), 1200))
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    content[at : at + 8] = rng.randbytes(8)
                case 2:
                    content[at:at] = content[at : at + rng.randint(1, 400)]
                case 3:
                    del content[at : at + rng.randint(1, 40)]
        suffix = "safetensors" if number % 3 == 2 else "pth"
        files.append(tmp_path / f"{number}.{suffix}")
        files[-1].write_bytes(content)
    pickled = [f for f in files if f.suffix == ".pth"]
    results = dict(zip(pickled, foreign.convert(pickled, tmp_path), strict=True))
    refused = 0
    for file in files:
        try:
            weights._tensors(file, results.get(file, file), None)
        except LimnerError as error:
            refused += str(error).isprintable()
    assert refused > 120
