"""The cost of drawing images: time, network evaluations, parameters and memory; and the cost of the training.

Protocol: evaluation mode, inference mode, a fixed number of threads, warm-up runs that do not count, from noise to
8-bit images, the device synchronised before every reading of the clock. Compare times only with those of the same
machine (`Cost.where`), measured while nothing else runs.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limner.core.batch import to_uint8
from limner.core.device import describe
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel, parameters
from limner.core.run import Run

BATCHES = (1, 8, 64, 256)
_WARM_UPS, _REPEATS = 20, 50


@dataclass(frozen=True)
class Cost:
    """The cost of drawing images.

    Attributes:
        latency_p50_ms: median time of one image.
        latency_p95_ms: 95th percentile of the time of one image.
        repeats: number of images that were timed one by one; if the time limit allows fewer than 50, the percentiles
            are rough.
        warm_ups: number of runs before them that did not count.
        throughput: images a second at the best batch size.
        best_batch: the batch size with the highest throughput.
        throughputs: images a second by batch size, for sizes that fit into the time limit and the memory.
        evaluations: calls of nets to draw one image (`count_evaluations`): 1 for a GAN; for a diffusion model one or
            two a step, and twice as many with guidance.
        parameters: number of parameters.
        groups: number of parameters by group; groups may share some.
        weight_bytes: size of parameters and buffers in memory.
        peak_bytes: peak memory; None where the system does not report it.
        peak_of: what that memory belongs to: the ``device`` from the start of the measurement, or the whole
            ``process`` from its own start, data and training included.
        where: device, threads and versions, on which the times depend.
    """

    latency_p50_ms: float
    latency_p95_ms: float
    repeats: int
    warm_ups: int
    throughput: float
    best_batch: int
    throughputs: dict[int, float]
    evaluations: int
    parameters: int
    groups: dict[str, int]
    weight_bytes: int
    peak_bytes: int | None
    peak_of: str
    where: dict[str, Any]


def cost(
    model: GenerativeModel,
    *,
    batches: tuple[int, ...] = BATCHES,
    threads: int | None = None,
    limit: float = 10.0,
    seed: int = 0,
) -> Cost:
    """Measures the cost of drawing images on the model's device.

    Args:
        model: draws samples.
        batches: batch sizes for which the throughput is measured.
        threads: CPU threads while measuring; default the current number.
        limit: seconds for the whole measurement. A slow sampler is timed less often and at fewer sizes, but at least
            once.
        seed: seed of the noise.

    Raises:
        LimnerError: batches, threads or limit are not positive.
    """
    if not batches or min(batches) < 1 or limit <= 0 or (threads is not None and threads < 1):
        raise LimnerError(f"cost needs batches and threads from 1 and a positive limit, got {batches} and {limit:g} s")
    device = model.device
    generator = torch.Generator(device).manual_seed(seed)

    def draw(n: int) -> float:
        """Seconds to draw n images."""
        _synchronise(device)
        start = time.perf_counter()
        to_uint8(model.sample(n, generator=generator, batch=n))
        _synchronise(device)
        return time.perf_counter() - start

    with _threads(threads):
        start = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        evaluations = count_evaluations(model, seed=seed)
        warm_ups = _timed(draw, 1, _WARM_UPS, start + 0.15 * limit)
        single_times = _timed(draw, 1, _REPEATS, start + 0.5 * limit)
        speeds = _speeds(draw, batches, single_times, start, limit)
        where = describe(device)
    best = max(speeds, key=lambda b: speeds[b])
    peak, peak_of = _peak(device)
    return Cost(
        latency_p50_ms=1000 * _quantile(single_times, 0.5),
        latency_p95_ms=1000 * _quantile(single_times, 0.95),
        repeats=len(single_times),
        warm_ups=len(warm_ups),
        throughput=speeds[best],
        best_batch=best,
        throughputs=speeds,
        evaluations=evaluations,
        parameters=sum(p.numel() for p in model.parameters()),
        groups={name: n["total"] for name, n in parameters(model).items()},
        weight_bytes=weight_bytes(model),
        peak_bytes=peak,
        peak_of=peak_of,
        where=where,
    )


def _timed(draw: Callable[[int], float], n: int, repeats: int, until: float) -> list[float]:
    """Seconds of up to `repeats` draws, at least one; no further one starts if it would end after `until`."""
    times = [draw(n)]
    while len(times) < repeats and time.perf_counter() + times[-1] <= until:
        times.append(draw(n))
    return times


def _speeds(
    draw: Callable[[int], float], batches: tuple[int, ...], single_times: list[float], start: float, limit: float
) -> dict[int, float]:
    """Images a second by batch size, in ascending order until time or memory ends."""
    speeds: dict[int, float] = {}
    best = 1 / _quantile(single_times, 0.5)  # images a second, so far
    for i, batch in enumerate(sorted(set(batches))):
        remaining = start + limit - time.perf_counter()
        if batch == 1:
            speeds[1] = best
            continue
        if speeds and 2 * batch / best > remaining:  # a warm-up and at least one run
            break
        try:
            warm_up_time = draw(batch)
            if speeds and warm_up_time > start + limit - time.perf_counter():
                break
            deadline = time.perf_counter() + remaining / (len(set(batches)) - i)
            times = _timed(draw, batch, _REPEATS, min(deadline, start + limit))
        except (torch.OutOfMemoryError, MemoryError):
            break
        speeds[batch] = batch / _quantile(times, 0.5)
        best = max(best, speeds[batch])
    return speeds or {1: best}


def _quantile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed, by the nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def _synchronise(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    previous = torch.get_num_threads()
    torch.set_num_threads(n or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def count_evaluations(model: GenerativeModel, *, seed: int = 0) -> int:
    """Number of calls of the model's nets to draw one image, the NFE of papers, as `count_calls` counts them.

    A model may state the number by an attribute `evaluations` instead.
    """
    declared = getattr(model, "evaluations", None)
    if isinstance(declared, int):
        return declared
    return max(count_calls(model, lambda: model.sample(1, seed=seed)), 1)


def count_calls(model: nn.Module, work: Callable[[], object]) -> int:
    """Number of calls of a model's nets while some work is done on one image.

    Calls of the model's direct submodules with weights are counted, but not calls within such a call. A call is
    weighted by its batch: a guided step that puts the image through its net with and without the class, as a batch of
    two, counts twice.
    """
    images, inside = 0, 0

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal images, inside
        if inside == 0:
            images += next((len(x) for x in inputs if isinstance(x, torch.Tensor) and x.dim()), 1)
        inside += 1

    def leave(*_: Any) -> None:
        nonlocal inside
        inside -= 1

    with ExitStack() as hooks:
        for part in _parts(model):
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave, always_call=True).remove)
        work()
    return images


@dataclass(frozen=True)
class Effort:
    """How many images are drawn or encoded for the scores of a latent space, and for those of a training.

    Attributes:
        midpoints: pairs of draws between which images are decoded.
        paths: paths of a path length.
        even_paths: paths on which the evenness of steps is measured.
        codes: images that are encoded.
        round_trips: images and codes that go to the other side and back.
        reconstructions: images that are reconstructed; None means all.
        training_samples: samples that are scored during a training and at its end.
    """

    midpoints: int = 5000
    paths: int = 2000
    even_paths: int = 128
    codes: int = 2000
    round_trips: int = 256
    reconstructions: int | None = None
    training_samples: int = 2000


FULL = Effort()
SLOW = Effort(500, 100, 16, 200, 32, 64, 500)
"""The effort for models with many evaluations for one image."""


MANY = 4
"""A model that needs more evaluations of nets for one image than this is measured on fewer images."""


def is_slow(model: GenerativeModel) -> bool:
    """Whether an image takes more than four evaluations of nets, as those of diffusion models do."""
    try:
        return count_evaluations(model) > MANY
    except LimnerError:  # it draws no images
        return False


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """Direct submodules with weights; those of lists one by one."""
    for part in model.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _parts(part)
        elif any(True for _ in part.parameters()):
            yield part


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers; shared ones are counted once."""
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    return sum(sizes.values())


def _peak(device: torch.device) -> tuple[int | None, str]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "device"
    try:
        import resource
    except ImportError:  # Windows
        return None, "process"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


# ---- training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a training, from its log.

    Attributes:
        seconds: time of training, saving and sampling.
        images: number of real images that were trained on.
        images_per_second: images over seconds.
        steps: updates of the whole model; None if the log has none.
        device: kind and name, if recorded.
        threads: CPU threads; None if not recorded.
        energy_joules: measured energy; None if nothing measured it.
        energy: the energy or why there is none, in a sentence.
    """

    seconds: float
    images: int
    images_per_second: float
    steps: int | None
    device: str | None
    threads: int | None
    energy_joules: float | None
    energy: str


def training_cost(run: Run) -> TrainingCost:
    """The cost of a training so far, without interruptions.

    The energy comes from events of the run with `energy_joules`; it is never estimated from time and nominal power.

    Raises:
        LimnerError: nothing was logged yet.
    """
    lines = run.metrics()
    records = [r for r in [*lines, *run.events()] if "images" in r and r.get("seconds") is not None]
    last = max(records, key=lambda r: (r["images"], r["seconds"]), default=None)
    if last is None or not last["images"]:
        raise LimnerError(f"{run.name} has logged nothing yet; train it longer")
    env: dict[str, Any] = run.read_json("env.json") or {}
    seconds, images = float(last["seconds"]), int(last["images"])
    joules = next((float(e["energy_joules"]) for e in reversed(run.events()) if e.get("energy_joules")), None)
    names = [str(env[k]) for k in ("device", "device_name") if env.get(k)]
    return TrainingCost(
        seconds=seconds,
        images=images,
        images_per_second=images / seconds if seconds else math.inf,
        steps=int(lines[-1]["step"]) if lines and "step" in lines[-1] else None,
        device=", ".join(names) or None,
        threads=env.get("threads"),
        energy_joules=joules,
        energy="n/a, it was not measured during training; time and device bound it"
        if joules is None
        else f"{joules / 3600:.3g} Wh, measured",
    )
