"""A file can describe any net, and only one of its own size is built."""

from __future__ import annotations

import copy
import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

import limner
from limner.bench.shrink import shrunk
from limner.config.bounded import check_fits
from limner.config.load import build_model
from limner.config.spec import Spec
from limner.core.errors import LimnerError

SHAPE = [3, 64, 64]
RESNET = {"name": "resnet.Generator", "shape": SHAPE}
PATCHES = {"name": "patchgan.Discriminator", "shape": SHAPE}
VAE = {
    "name": "vae",
    "z": 2,
    "encoder": {"name": "mlp.Encoder", "z": 2, "heads": 2, "shape": SHAPE},
    "decoder": {"name": "mlp.Decoder", "z": 2, "shape": SHAPE},
}
CVAE = {
    "name": "cvae",
    "z": 2,
    "classes": 3,
    "encoder": {"name": "mlp.Encoder", "z": 2, "heads": 2, "conditional": True, "classes": 3, "shape": SHAPE},
    "decoder": {"name": "mlp.Decoder", "z": 2, "conditional": True, "classes": 3, "shape": SHAPE},
}
GROUPS = {"G": RESNET, "F": RESNET, "D_X": PATCHES, "D_Y": PATCHES, "shape": SHAPE}
CYCLEGAN = {"name": "cyclegan"} | GROUPS
R3GAN = {
    "name": "r3gan",
    "G": {"name": "r3gan.Generator", "z": 8, "shape": SHAPE},
    "D": {"name": "r3gan.Discriminator", "shape": SHAPE},
}
PIX2PIX = {
    "name": "pix2pix",
    "G": {"name": "unet.Generator", "shape": SHAPE, "source": 3},
    "D": {"name": "patchgan.Discriminator", "shape": SHAPE, "source": 3},
}
HOSTILE = [
    *[(CYCLEGAN, "G.blocks", n) for n in (10**6, 10**9, 2**62, -(10**9))],
    *[(CYCLEGAN, "G.width", n) for n in (10**6, 10**9, 2**62)],
    *[(CYCLEGAN, "pool", 10**9), (CYCLEGAN, "D_X.width", 10**6), (CYCLEGAN, "shape", [3, 10**9, 10**9])],
    *[(R3GAN, "G.blocks", 10**6), (R3GAN, "D.blocks", 10**9), (R3GAN, "G.width", 10**8), (R3GAN, "G.z", 10**12)],
    *[(R3GAN, "G.shape", [3, 2**40, 2**40]), (R3GAN, "G.expansion", 10**9), (R3GAN, "G.group", 10**9)],
    *[(PIX2PIX, "G.depth", n) for n in (10**5, 10**9)],
    *[(VAE, "encoder.widths", [8] * n) for n in (10**4, 10**5)],
    *[(CVAE, "classes", 10**9), (CVAE, "classes", -1), (CVAE, "condition", {"kind": "classes", "names": 10**9})],
    *[(VAE, "encoder.widths", [10**9]), (VAE, "z", 10**12), (VAE, "decoder.shape", [1, 10**6, 10**6])],
]


def changed(call: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    call = copy.deepcopy(call)
    *path, last = key.split(".")
    node = call
    for part in path:
        node = node[part]
    node[last] = value
    return call


@pytest.mark.parametrize(("call", "key", "value"), HOSTILE, ids=lambda v: str(v)[:20])
def test_a_small_file_of_a_large_net_costs_nothing(tmp_path: Path, call: Any, key: str, value: Any) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(save({"a": torch.zeros(1)}, {"spec": json.dumps(changed(call, key, value))}))
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimnerError) as error:
        limner.load(file)
    assert "\n" not in str(error.value)
    assert time.process_time() - began < 5, "CPU seconds; they are hundredths"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_images_of_no_size_are_refused() -> None:
    recipe = shrunk("cyclegan-emoji")
    spec = recipe.model.resolve(**recipe.data.build().facts())
    weights = spec.build().state_dict()
    build_model(spec.to_dict(), weights)
    for size in (10**9, 0, -3):
        call = changed(json.loads(spec.to_json()), "G.shape", [3, size, 16])
        with pytest.raises(LimnerError, match="cannot be made"):
            build_model(call, weights)


@pytest.mark.parametrize("name", ["ae-mnist", "sngan-mnist", "progressive-mnist", "cyclegan-emoji", "adain", "stylise"])
def test_an_honest_model_is_as_it_was(name: str) -> None:
    recipe = shrunk(name)
    spec = recipe.model.resolve(**recipe.data.build().facts())
    torch.manual_seed(0)
    expected = spec.build().state_dict()
    torch.manual_seed(0)
    check_fits(spec, expected)
    again = spec.build().state_dict()
    assert all(torch.equal(t, again[k]) for k, t in expected.items()), "the check draws no random numbers"
    loaded = build_model(spec.to_dict(), expected).state_dict()
    assert all(torch.equal(t, loaded[k]) for k, t in expected.items())


def test_other_weights_are_named(tmp_path: Path) -> None:
    spec = Spec.parse("model", VAE)
    weights = spec.build().state_dict()
    with pytest.raises(LimnerError, match="do not fit vae: names such as more differ"):
        check_fits(spec, weights | {"more": torch.zeros(1)})
    name = next(iter(weights))
    shape = "×".join(map(str, weights[name].shape))
    with pytest.raises(LimnerError, match=f"do not fit vae: {name} is 7 instead of {shape}"):
        check_fits(spec, weights | {name: torch.zeros(7)})


def test_other_threads_and_later_nets_are_not_counted() -> None:
    spec = Spec.parse("model", VAE)
    with pytest.raises(LimnerError):
        check_fits(spec, {})
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(2000)))
    assert len(list(net.parameters())) == 4000
    assert torch.zeros(3).tolist() == [0, 0, 0]
    assert nn.init.ones_(torch.zeros(2)).tolist() == [1, 1]


def test_a_run_of_others_is_bounded_by_its_checkpoint(tmp_path: Path) -> None:
    """Recipe and checkpoint both describe a large net, and the weights are those of a small one."""
    import hashlib

    from limner.core.checkpoint import MANIFEST, MODEL, folders, safetensors
    from limner.core.yaml_text import dump_yaml, read_yaml

    recipe = shrunk("ae-mnist", images=16, batch=8, checkpoint_images=16)
    run = limner.train(recipe.to_dict(), out=tmp_path / "run")
    tree = read_yaml(run.path / "recipe.yaml")
    tree["model"]["encoder"]["widths"] = [10**6, 10**6]
    (run.path / "recipe.yaml").write_text(dump_yaml(tree), encoding="utf-8")
    with pytest.raises(LimnerError, match="holds another model"):
        limner.resume(run.path, images=32)
    for folder in folders(run.checkpoints):
        tensors, metadata = safetensors((folder / MODEL).read_bytes(), MODEL)
        call = json.loads(metadata["spec"])
        call["encoder"]["widths"] = [10**6, 10**6]
        content = save(tensors, {"spec": json.dumps(call)})
        (folder / MODEL).write_bytes(content)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"][MODEL] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (folder / MANIFEST).write_text(json.dumps(manifest))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimnerError, match="do not fit autoencoder"):
        limner.resume(run.path, images=32)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
