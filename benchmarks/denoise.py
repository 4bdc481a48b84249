"""The denoising autoencoder beside its baselines: noisy input, median filter, PCA of the same code size.

    python benchmarks/denoise.py                    # trains denoising-ae-mnist into a temporary folder first
    python benchmarks/denoise.py runs/0001-…        # scores a run that exists

All numbers are PSNR in dB on held-out images, mean over images with one standard error; the noise is the model's own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from scipy.ndimage import median_filter
from sklearn.decomposition import PCA

import limner
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core.batch import to_float
from limner.core.inference import reconstruct
from limner.evaluation.reconstruction import corrupted
from limner.losses.reconstruction import psnr


def compare(path: Path) -> dict[str, tuple[float, float]]:
    run, model = limner.Run(path), limner.load(path)
    source = recipes.load(run.recipe).data
    heldout, train = (Spec(source.kind, source.name, source.kwargs | {"split": s}).build() for s in ("test", "train"))
    clean, noisy = corrupted(model, heldout)
    with torch.inference_mode():
        ours = reconstruct(model, noisy)
        z = model.encode(noisy[:1]).numel()
    flat = to_float(train.fetch(range(len(train)))).flatten(1).numpy()
    pca = PCA(z).fit(flat)
    projected = torch.from_numpy(pca.inverse_transform(pca.transform(noisy.flatten(1).numpy()))).view_as(clean)
    filtered = torch.from_numpy(median_filter(noisy.numpy(), size=(1, 1, 3, 3)))
    rows = {
        "noisy input": noisy,
        "median filter 3x3": filtered,
        f"PCA, {z} numbers": projected.clamp(-1, 1).float(),
        f"{run.recipe['model']['name']}, {z} numbers": ours,
    }
    values = {name: psnr(x, clean) for name, x in rows.items()}
    return {name: (float(v.mean()), float(v.std() / len(v) ** 0.5)) for name, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(chosen.run or limner.train("denoising-ae-mnist", out=f"{folder}/run").path)
    for name, (value, error) in found.items():
        print(f"{name:<40} {value:6.2f} ± {error:.2f} dB")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
