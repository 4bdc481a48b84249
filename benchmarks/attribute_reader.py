"""Trains a net behind `limner.metrics.extractors.attributes.attribute_reader` and writes its file.

    python benchmarks/attribute_reader.py avatars --out avatars-v1.safetensors
    python benchmarks/attribute_reader.py avatars --check        accuracy of the file that limner ships
    python benchmarks/attribute_reader.py solids --epochs 50 --batch 32 --lr 2e-3 --out solids-v1.safetensors

Images of the split train, each anew in every epoch turned by up to 4°, resized by up to 4 % (solids 1 %) and moved by
up to 1 pixel, blurred, with other brightness of each channel and with noise: what comes out of a generator is softer
than a drawing, and not quite in its place. Images of 64 pixels are reduced to 32, bilinear and antialiased, as the
reader does. Batch norm, which is folded into the convolutions in the end; AdamW with one cycle of the learning rate; a
fixed number of epochs, and the last weights. The held-out images select nothing. A new file has other bits: whoever
ships it gives it another key and writes its sha256, which is printed, into `limner/metrics/extractors/attributes.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from norms import folded, with_norms
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

import limner.data
from limner.core.batch import to_float
from limner.data.sources.solids import VALUES, views
from limner.metrics.extractors.attributes import KEYS, SIDE, AttributeNet, attribute_reader
from limner.metrics.extractors.features import resized
from limner.metrics.extractors.readers import cross_entropies

SETS: dict[str, dict[str, Any]] = {"avatars": {"n": 60_000}, "solids": {}}
RESIZED = {"avatars": 0.04, "solids": 0.01}  # the width of a head is its ratio to the height, so less is told by it
QUANTITIES: dict[str, dict[str, float | None]] = {"avatars": {}, "solids": dict.fromkeys(VALUES)}  # none repeats
_BETWEEN = 500  # heads at amounts between those of the set


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images (B,C,H,W) through a Gaussian of `sigma` pixels."""
    if sigma < 0.1:
        return x
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
    taps = (taps / taps.sum()).repeat(x.shape[1], 1)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="replicate"), taps[:, None, None, :], groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, 2, 2), mode="replicate"), taps[:, None, :, None], groups=x.shape[1])


def softened(x: Tensor, generator: torch.Generator, size: float) -> Tensor:
    """Images (B,C,32,32) as a generator might have drawn them, resized by up to `size`."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    n, c = x.shape[:2]
    turn, scale = uniform(-math.pi * 4 / 180, math.pi * 4 / 180, n), 1 + uniform(-size, size, n)
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    shift = uniform(-1.0, 1.0, n, 2) * 2 / SIDE
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    parts = [blurred(part, float(uniform(0, 0.7, 1))) for part in moved.split((n + 3) // 4)]
    gain, offset = uniform(0.85, 1.1, n, c, 1, 1), uniform(-0.08, 0.08, n, c, 1, 1)
    noise = uniform(0, 0.15, n, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    return (torch.cat(parts) * gain + offset + noise).clamp(-1, 1)


def train(
    x: Tensor, y: Tensor, sizes: Sequence[int], size: float, epochs: int, batch: int, lr: float, seed: int
) -> AttributeNet:
    """A net trained on uint8 images (N,C,32,32) with value indices (N,F)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    trained = with_norms(AttributeNet(x.shape[1], sum(sizes))).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(trained.parameters(), lr, weight_decay=1e-2, fused=True)
    each = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, epochs * each, pct_start=0.2)
    for epoch in range(epochs):
        order, total = torch.randperm(len(x), generator=generator), 0.0
        for ids in order[: each * batch].split(batch):
            found = cross_entropies(trained(softened(to_float(x[ids]), generator, size))[1], y[ids], sizes)
            optimiser.zero_grad()
            found.backward()
            optimiser.step()
            schedule.step()
            total += float(found.detach())
        print(f"epoch {epoch + 1:3d}  {time.process_time():4.0f} CPU s  loss {total / each:.4f}", flush=True)
    return folded(trained.eval().to(memory_format=torch.contiguous_format))


def table(name: str, split: str, **options: Any) -> tuple[Tensor, Tensor, Mapping[str, Sequence[str]]]:
    """Images (N,C,H,W) uint8, value indices (N,F), and the names of the values."""
    data = limner.data.load(name, split=split, **SETS[name], **options)
    assert data.pixels is not None
    assert data.labels is not None
    assert data.condition is not None
    return data.pixels, data.condition.features(data.labels), data.condition.values


def reduced(x: Tensor) -> Tensor:
    """Images (N,C,H,W) uint8 at 32×32, as the reader reduces them."""
    parts = [resized(to_float(part), (SIDE, SIDE)).add(1).mul(127.5).round().clamp(0, 255) for part in x.split(1000)]
    return torch.cat([part.to(torch.uint8) for part in parts])


@torch.inference_mode()
def outputs(net: nn.Module, x: Tensor, size: float | None = None) -> tuple[Tensor, Tensor]:
    """Values and logits of uint8 images (N,C,32,32), softened and resized by up to `size` if it is given."""
    generator = torch.Generator().manual_seed(1)
    floats = (to_float(part) for part in x.split(512))
    pairs = [net(part if size is None else softened(part, generator, size)) for part in floats]
    return torch.cat([z for z, _ in pairs]), torch.cat([logits for _, logits in pairs])


def accuracy(logits: Tensor, y: Tensor, values: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Share of images read right, for each attribute."""
    parts = zip(values, logits.split([len(v) for v in values.values()], 1), y.unbind(1), strict=True)
    return {name: round(float((part.argmax(1) == truth).double().mean()), 4) for name, part, truth in parts}


def between(n: int = _BETWEEN) -> tuple[Tensor, Tensor]:
    """Heads (n,1,48,48) uint8 of `solids` at amounts (n,4) that are drawn between the ends of each factor."""
    ends = torch.tensor([[float(values[0]), float(values[-1])] for values in VALUES.values()], dtype=torch.float64)
    chance = torch.rand(n, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    amounts = ends[:, 0] + chance * (ends[:, 1] - ends[:, 0])
    heads = [torch.from_numpy(views(a, e, [light], w)) for a, e, light, w in amounts.tolist()]
    return torch.stack(heads), amounts


def errors(logits: Tensor, amounts: Tensor) -> dict[str, float]:
    """Mean absolute error of the mean amounts that are read, each as a share of the range of its factor."""
    found = {}
    for part, truth, (name, names) in zip(
        logits.double().split([len(v) for v in VALUES.values()], 1), amounts.unbind(1), VALUES.items(), strict=True
    ):
        values = torch.tensor([float(v) for v in names], dtype=torch.float64)
        read = part.softmax(1) @ values
        found[name] = round(float((read - truth).abs().mean() / (values[-1] - values[0])), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=SETS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    x_test, test, values = table(chosen.data, "test")
    if chosen.check and chosen.data not in KEYS:
        parser.error(f"limner ships no reader of {chosen.data}")
    if chosen.check:
        shipped = attribute_reader(KEYS[chosen.data])
        small = table(chosen.data, "test", size=SIDE)[0]
        for name, images in (("as drawn", x_test), (f"of {SIDE} pixels", small)):
            right = (shipped.read(images) == test).double().mean(0).tolist()
            print(f"{shipped.key}, {len(test)} held-out images {name}:", dict(zip(values, right)))
        if chosen.data == "solids":
            heads, amounts = between()
            joined = torch.cat([*shipped.logits(heads).values()], 1)
            print(f"{_BETWEEN} heads between, error as a share of the range:", errors(joined, amounts))
        return
    x, y, _ = table(chosen.data, "train")
    x, x_test, sizes = reduced(x), reduced(x_test), [len(v) for v in values.values()]
    net = train(x, y, sizes, RESIZED[chosen.data], chosen.epochs, chosen.batch, chosen.lr, chosen.seed)
    codes = outputs(net, x[:10_000])[0]
    about = {
        "trained_on": f"{len(x):,} training images of {chosen.data} at {SIDE}×{SIDE}, turned, resized, moved, blurred,"
        " with other brightness and with noise",
        "recipe": f"benchmarks/attribute_reader.py, {chosen.epochs} epochs of batches of {chosen.batch}, AdamW"
        f" {chosen.lr:g}, one cycle, seed {chosen.seed}",
        "values": {name: list(known) for name, known in values.items()},
        "accuracy_test": accuracy(outputs(net, x_test)[1], test, values),
        "accuracy_test_softened": accuracy(outputs(net, x_test, RESIZED[chosen.data])[1], test, values),
        "quantities": QUANTITIES[chosen.data],
        "test_images": len(test),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    if chosen.data == "solids":
        heads, amounts = between()
        about["error_between"] = errors(outputs(net, reduced(heads))[1], amounts)
    weights = {k: v.contiguous() for k, v in net.state_dict().items()} | {"mean": codes.mean(0), "std": codes.std(0)}
    content = save(weights, {"about": json.dumps(about, ensure_ascii=False)})
    print(json.dumps(about, indent=1, ensure_ascii=False))
    print(f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}, {time.process_time():.0f} CPU s")
    if chosen.out:
        chosen.out.write_bytes(content)


if __name__ == "__main__":
    main()
