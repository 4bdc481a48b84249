"""The options of a training. This module does not import torch, so that `limner explain` answers quickly."""

from __future__ import annotations

from typing import Literal

from limner.core.units import Count, Duration

GraphOption = Literal["auto", True, False]
"""``train.graph``: auto, on (True) or off (False)."""


_MOST = 10**15
"""The largest number of images, which is exact in the floating-point numbers of a schedule."""


class TrainOptions:
    """The options of a training: the section ``train`` of a recipe.

    Args:
        images: real images to train on in total, over all ranks. Raise it if quality still rises at the end.
        init: a run, a checkpoint or a model.safetensors whose weights the training begins with, to tune a model on
            other data; the nets must be alike. null begins with random weights.
        batch: images per step over all ranks. Raise it for steadier gradients; lower it if memory is short.
        seed: seed of initial weights, order, augmentation and noise.
        ema_images: half-life of the weights' moving average in images; 0 averages nothing. Raise it for calmer samples.
        ema_ramp: largest half-life as a share of the images seen so far; 0 sets no bound. Raise it for calmer samples
            early in a training; 0.05 is usual for diffusion.
        log_images: images between lines of metrics.jsonl; null means every 50 steps.
        sample_images: images between sample grids; null means 20 grids.
        checkpoint_images: images between checkpoints; null means 10 checkpoints. Lower it to lose less in a crash.
        milestone_images: checkpoints at multiples of this are never deleted; 0 keeps none.
        score_images: images between scores (quality and coverage) of 2,000 samples; the best checkpoint is kept. 0
            scores only at the end. Lower it to catch the best moment of a GAN; each score takes some seconds.
        doctor: whether the training is examined while it runs: findings such as a collapse are told when they begin. It
            changes no result.
        doctor_images: images between examinations; null means every 250 batches. Raise it if they cost much time.
        keep: number of newest checkpoints to keep.
        samples: images in a sample grid.
        time: longest training time, e.g. 20m; null trains to the end.
        precision: bf16 runs the nets in bfloat16 and keeps the weights in float32; a device that would only emulate it,
            slowly, is refused. bf16-emulated insists on it.
        device: auto, cpu, cuda, mps, a number, or a list such as 0,1 for one process each.
        threads: CPU threads; null uses PyTorch's default. Results are reproducible for a given number of threads.
        workers: processes that read image files ahead; 0 takes threads of this process. Raise it if large pictures keep
            the device waiting; data sets in memory need none.
        channels_last: memory format of convolutions; faster for most convolutional nets without instance norm.
        deterministic: use only kernels that give the same bits each time.
        graph: auto records steps as CUDA graphs on a CUDA device if the model allows it, which makes small nets faster
            with the same results; on fails with a reason if that is not possible; off never records.
        guard: goes back to the last healthy checkpoint by itself when the training has diverged, three times at most,
            with another order and other noise and half the learning rates each time, and says so. false ends a diverged
            training with an error, so that what ends is always what the recipe says.
    """

    def __init__(
        self,
        images: Count,
        init: str | None = None,
        batch: int = 64,
        seed: int = 0,
        ema_images: Count = 0,
        ema_ramp: float = 0.0,
        log_images: Count | None = None,
        sample_images: Count | None = None,
        checkpoint_images: Count | None = None,
        milestone_images: Count = 0,
        score_images: Count = 0,
        doctor: bool = True,
        doctor_images: Count | None = None,
        keep: int = 3,
        samples: int = 64,
        time: Duration | None = None,
        precision: Literal["fp32", "bf16", "bf16-emulated"] = "fp32",
        device: str | int = "auto",
        threads: int | None = None,
        workers: int = 0,
        channels_last: bool = False,
        deterministic: bool = True,
        graph: GraphOption = "auto",
        guard: bool = False,
    ) -> None:
        for name, value, least, most in (
            ("images", images, 1, _MOST),
            ("batch", batch, 1, _MOST),
            ("seed", seed, -(1 << 63), (1 << 63) - 1),
            ("ema_images", ema_images, 0, _MOST),
            ("log_images", log_images, 1, _MOST),
            ("sample_images", sample_images, 1, _MOST),
            ("checkpoint_images", checkpoint_images, 1, _MOST),
            ("milestone_images", milestone_images, 0, _MOST),
            ("score_images", score_images, 0, _MOST),
            ("doctor_images", doctor_images, 1, _MOST),
            ("keep", keep, 1, _MOST),
            ("samples", samples, 1, 10_000),
            ("threads", threads, 1, 1024),
            ("workers", workers, 0, 1024),
        ):
            if value is not None and not least <= value <= most:
                limit = f"at least {least}" if value < least else f"at most {most}"
                raise ValueError(f"{name} must be {limit}, got {value}")
        if not 0 <= ema_ramp <= 1:
            raise ValueError(f"ema_ramp must be a share from 0 to 1, got {ema_ramp:g}; write 0.05, or 0 for no bound")
        if time is not None and not time > 0:
            raise ValueError(f"time must be above 0, got {time:g} seconds; write 90s, 20m or 1h30m")
        self.init = init
        self.images, self.batch, self.seed, self.ema_images = images, batch, seed, ema_images
        self.ema_ramp = ema_ramp
        self.log_images = log_images or 50 * batch
        self.sample_images = sample_images or max(batch, images // 20)
        self.checkpoint_images = checkpoint_images or max(batch, images // 10)
        self.milestone_images, self.keep, self.samples = milestone_images, keep, samples
        self.score_images = score_images
        self.doctor, self.doctor_images = doctor, doctor_images or 250 * batch
        self.time, self.precision, self.device = time, precision, str(device)
        self.bf16 = precision != "fp32"
        self.threads, self.workers = threads, workers
        self.channels_last, self.deterministic, self.graph = channels_last, deterministic, graph
        self.guard = guard
