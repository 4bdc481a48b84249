"""How well images are reconstructed from their codes, or from noisy images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from limner.core.batch import Dataset
from limner.core.capabilities import Corrupts, Reconstructs
from limner.core.inference import reconstruct
from limner.evaluation.draws import batches
from limner.losses.reconstruction import psnr


class UndoesCorruption(Reconstructs, Corrupts, Protocol):
    """A model that corrupts images and reconstructs them."""


@torch.inference_mode()
def reconstruction_psnr(
    model: Reconstructs, dataset: Dataset, device: torch.device | str = "cpu", limit: int | None = None
) -> Tensor:
    """PSNR in dB of the reconstruction of every image, (N,), on the CPU; the peak is the full range of grey values.

    `limit` is the largest number of images, which are drawn at random with a fixed seed.
    """
    n = min(limit or len(dataset), len(dataset))
    parts = [psnr(reconstruct(model, x, y), x) for x, y, _ in batches(dataset, n, 256, device)]
    return torch.cat(parts).cpu()


@torch.inference_mode()
def corrupted(
    model: Corrupts, dataset: Dataset, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Clean images and those corrupted by the model's noise, (N,C,H,W) each; equal for equal seeds."""
    clean, noisy = [], []
    for x, _, ids in batches(dataset, len(dataset), 256, device):
        generator = torch.Generator(device).manual_seed(seed + ids[0])

        def noise(*size: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*size, generator=generator, device=device)

        clean.append(x)
        noisy.append(model.corrupt(x, noise))
    return torch.cat(clean), torch.cat(noisy)


@torch.inference_mode()
def denoising_psnr(
    model: UndoesCorruption, dataset: Dataset, device: torch.device | str = "cpu", seed: int = 0
) -> dict[str, tuple[Tensor, str]]:
    """PSNR in dB, (N,), of noisy images and of their reconstructions, each with a description."""
    clean, noisy = corrupted(model, dataset, device, seed)
    outputs = torch.cat([reconstruct(model, part) for part in noisy.split(256)])
    return {
        "psnr_noisy_db": (psnr(noisy, clean).cpu(), "the noisy input against the clean image"),
        "psnr_denoised_db": (psnr(outputs, clean).cpu(), "the denoised image against the clean one"),
    }
