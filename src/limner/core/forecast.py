"""The time and memory that a training will take, forecast from a few of its steps.

Steps of small batches come first: their time and their memory grow with the batch along a line. Larger ones are taken
as long as they are quick and small, so a light recipe is measured at its own batch and a heavy one is extrapolated.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from limner.core.batch import Dataset
from limner.core.device import make_deterministic, memory
from limner.core.ema import EMA
from limner.core.graph import Steps
from limner.core.model import GenerativeModel
from limner.core.optimisers import Optimiser
from limner.core.options import TrainOptions
from limner.core.stream import Stream
from limner.core.update import Updates

_TIMED, _QUICK = 3, 1.0  # steps of each batch, if one takes less than so many seconds; else one
_GRACE = 0.2  # of the limit, by which a step may be late
_SHARE = 0.5  # of the device's memory, which the steps of a forecast leave to others
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes:
        images: images of one step.
        seconds: time of all steps, without previews, scores and checkpoints.
        bytes: peak memory: on a CPU that of the process, on other devices that of the tensors.
        batch: the largest batch of which steps were taken; below the training's, the figures are extrapolated.
        steps: number of steps taken. If it is 0, the first step was ended when the time was over, and the training
            takes at least these figures.
    """

    images: int
    seconds: float
    bytes: int
    batch: int
    steps: int


@dataclass(frozen=True)
class _Sample:
    batch: int
    images: int  # of a step
    seconds: float  # of a step
    peak: int  # bytes
    saved: int  # bytes of activations for the backward passes, which grow with the batch

    def bytes(self, batch: int) -> int:
        """The peak at another batch."""
        return self.peak + self.saved * (batch - self.batch) // self.batch


def forecast(
    options: TrainOptions,
    model: GenerativeModel,
    dataset: Dataset,
    optimisers: Mapping[str, Optimiser],
    device: torch.device,
    limit: float = 20.0,
) -> Forecast:
    """Takes a few steps, which change the model, and extrapolates from them.

    A model that grows is measured as it is at the end.

    Args:
        options: the section ``train`` of a recipe.
        model: the model to train, on `device`.
        dataset: the training data.
        optimisers: one optimiser for each group of the model.
        device: the device to train on.
        limit: no larger batch is taken that would end later than so many seconds after the start. A step that lasts
            a fifth longer is ended.
    """
    start, before = time.perf_counter(), _peak(device)
    if options.deterministic:
        make_deterministic()
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    update = Updates(model.groups(), optimisers)
    ema = EMA(model, options.ema_images) if options.ema_images else None
    samples: list[_Sample] = []
    taken = 0
    for batch in _batches(model, options.batch):
        if samples:
            last, passed = samples[-1], time.perf_counter() - start
            if last.seconds < _QUICK and batch < min(4 * last.batch, options.batch):
                continue
            available = memory(device)
            is_large = available is not None and last.bytes(batch) > _SHARE * available
            if is_large or passed + last.seconds * batch / last.batch > limit:
                break
        step = _stepper(options, model, dataset, update, ema, device, batch)
        watch = _Watch(start + limit * (1 + _GRACE), model)
        _reset_peak(device)
        try:
            with watch:
                images, seconds = step()  # prepares kernels, so it is slower
        except _TooLate:
            if not samples:
                samples.append(_Sample(batch, batch, time.perf_counter() - start, _peak(device), watch.saved))
            break
        times: list[float] = []
        repeats = _TIMED if seconds < _QUICK else 1 if taken == 0 else 0
        while len(times) < repeats and time.perf_counter() - start + seconds < limit:
            times.append(step()[1])
        taken += 1 + len(times)
        seconds = sum(times) / len(times) if times else seconds
        samples.append(_Sample(batch, images, seconds, _peak(device), watch.saved))
    largest = samples[-1]
    images = largest.images * options.batch // largest.batch
    needed = max(largest.bytes(options.batch), before)
    if taken < 2:  # the moments of the optimisers came after the peak
        needed += 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    return Forecast(images, _seconds(samples, options.batch) / images * options.images, needed, largest.batch, taken)


def _batches(model: GenerativeModel, largest: int) -> Iterator[int]:
    """Batches that the model accepts, each twice the one before, up to the training's own."""
    for shift in range(largest.bit_length() - 1, 0, -1):
        batch = largest >> shift
        try:
            model.check_batch(batch)
        except ValueError:
            continue
        yield batch
    yield largest


def _stepper(
    options: TrainOptions,
    model: GenerativeModel,
    dataset: Dataset,
    update: Updates,
    ema: EMA | None,
    device: torch.device,
    batch: int,
) -> Callable[[], tuple[int, float]]:
    """A function that takes one step of a batch, and returns the images and seconds that it took."""
    position = options.images // batch * batch
    stream = Stream(dataset, batch, options.seed, device=device, position=position, channels_last=options.channels_last)
    steps = Steps(model, update, stream, bf16=options.bf16, graph=False)

    def step() -> tuple[int, float]:
        start, before = time.perf_counter(), stream.position
        stream.begin()
        steps()
        if ema is not None:
            ema.update(stream.position - before)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return stream.position - before, time.perf_counter() - start

    return step


def _seconds(samples: list[_Sample], batch: int) -> float:
    """The time of a step, on the line through the last two samples, which never falls; in proportion to one."""
    *others, last = samples
    earlier, seconds = (others[-1].batch, others[-1].seconds) if others else (0, 0.0)
    slope = max(0.0, last.seconds - seconds) / (last.batch - earlier)
    return last.seconds + slope * (batch - last.batch)


class _TooLate(Exception):
    """The time of a step is over."""


class _Watch:
    """Watches a step: ends it at its next module or saved tensor once `time.perf_counter` has passed `end`.

    Attributes:
        saved: bytes of the tensors that were saved for backward passes, without the weights.
    """

    def __init__(self, end: float, model: torch.nn.Module) -> None:
        self.end, self._sizes = end, dict[int, int]()
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._hooks = ExitStack()

    @property
    def saved(self) -> int:
        return sum(self._sizes.values())

    def __enter__(self) -> None:
        self._hooks.callback(register_module_forward_pre_hook(lambda module, inputs: self._check()).remove)
        self._hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack))

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _check(self) -> None:
        if time.perf_counter() > self.end:
            raise _TooLate

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self._check()
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def _unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        self._check()
        return tensor


# ---- memory ----------------------------------------------------------------------------------------------------------


def _peak(device: torch.device) -> int:
    """The largest memory since `_reset_peak`, in bytes; since the start of the process where it cannot be reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if _STATUS.is_file():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text("ascii", "replace").splitlines() if ":" in line)
        return 1024 * int(fields["VmHWM"].split()[0])
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu" and _STATUS.is_file():
        try:
            _STATUS.with_name("clear_refs").write_bytes(b"5")
        except OSError:
            return
