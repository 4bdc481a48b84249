"""Trains the classifiers behind `limner.metrics.extractors.features.load` and writes their files.

    LIMNER_DATA=FOLDER python benchmarks/extractor.py --out lenet64.safetensors        (FOLDER/mnist.npz, or downloaded)
    python benchmarks/extractor.py --data fashion-mnist --out fashion64.safetensors
    python benchmarks/extractor.py --check           accuracy of the file that limner ships, on the 10,000 test images

The 60,000 training images, each moved by up to two pixels anew in every epoch (clothes are mirrored too, at random);
batch norm, which is folded
into the convolutions in the end; dropout on the hidden layer; AdamW with one cycle of the learning rate; a fixed number
of epochs, and the last weights. The test images choose nothing. A file made anew has other bits: whoever ships it gives
it another key and writes its sha256, which is printed, into `limner/metrics/extractors/features.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
from norms import folded, with_norms
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

import limner.data
from limner.core.batch import Dataset, to_float
from limner.core.stream import Stream
from limner.metrics.extractors.features import KEYS, _LeNet64, classifier


def train(data: Dataset, epochs: int, batch: int, lr: float, seed: int) -> _LeNet64:
    torch.manual_seed(seed)
    trained = with_norms(_LeNet64())
    head = trained.head
    trained.head = nn.Sequential(nn.Dropout(0.3), head)
    trained.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(trained.parameters(), lr, weight_decay=1e-2, fused=True)
    steps = epochs * len(data) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=0.2)
    stream, began, right = Stream(data, batch, seed), time.monotonic(), 0.0
    for step in range(1, steps + 1):
        stream.begin()
        x, y = next(stream)
        logits = trained(x)[1]
        loss = F.cross_entropy(logits, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        right += float((logits.argmax(1) == y).float().mean())
        if step % (len(data) // batch) == 0:
            share = right / (len(data) // batch)
            print(
                f"epoch {stream.epoch:5.1f}  {time.monotonic() - began:4.0f} s  training accuracy {share:.4f}",
                flush=True,
            )
            right = 0.0
    trained.head = head
    return folded(trained.eval().to(memory_format=torch.contiguous_format))


@torch.inference_mode()
def outputs(net: nn.Module, data: Dataset) -> tuple[Tensor, Tensor]:
    """Codes (N,64) and logits (N,10) of a whole set."""
    parts = [net(to_float(data.fetch(range(i, min(i + 500, len(data)))))) for i in range(0, len(data), 500)]
    codes, logits = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(logits)


def accuracy(logits: Tensor, data: Dataset) -> float:
    assert data.labels is not None
    return float((logits.argmax(1) == data.labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--data", choices=["mnist", "fashion-mnist"], default="mnist")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    test = limner.data.load(chosen.data, split="test")
    if chosen.check:
        shipped = classifier(KEYS[chosen.data])
        assert test.pixels is not None
        print(f"{shipped.key}: {accuracy(shipped.classify(test.pixels), test):.4f} on {len(test)} test images")
        return
    data = limner.data.load(chosen.data, split="train", shift=2, flip=chosen.data == "fashion-mnist")
    net = train(data, chosen.epochs, chosen.batch, chosen.lr, chosen.seed)
    codes, logits = outputs(net, data)
    right, right_test = accuracy(logits, data), accuracy(outputs(net, test)[1], test)
    about = {
        "trained_on": f"{len(data)} training images of {data.name}, moved by up to 2 pixels"
        + (", mirrored at random" if chosen.data == "fashion-mnist" else ""),
        "recipe": f"benchmarks/extractor.py --data {chosen.data}, {chosen.epochs} epochs of batches of {chosen.batch},"
        f" AdamW {chosen.lr:g}, one cycle, seed {chosen.seed}",
        "accuracy_test": right_test,
        "accuracy_train": right,
        "test_images": len(test),
        "parameters": sum(p.numel() for p in net.parameters()),
        "features": "64 numbers before the ReLU of the hidden layer, z-scored by mean and std over the training images",
    }
    tensors = {k: v.contiguous() for k, v in net.state_dict().items()} | {"mean": codes.mean(0), "std": codes.std(0)}
    content = save(tensors, {"about": json.dumps(about)})
    print(json.dumps(about, indent=1))
    print(f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    if chosen.out:
        chosen.out.write_bytes(content)


if __name__ == "__main__":
    main()
