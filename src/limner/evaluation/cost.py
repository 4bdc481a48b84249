"""What images cost: time, network evaluations, parameters and memory; and what the training cost.

Protocol: evaluation mode, inference mode, a fixed number of threads, warm-up runs that do not count, from noise to
8-bit images, the device waited for before every reading of the clock. Times are of one machine: they compare only with
others of the same (`Cost.where`), measured while nothing else ran.
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
    """What drawing images costs.

    Attributes:
        latency_p50_ms: median time of one image.
        latency_p95_ms: 95th percentile of it.
        repeats: images that were timed one by one. Fewer than 50 where the time limit came first: the percentiles are
            rough then.
        warm_ups: runs before them that did not count.
        throughput: images a second at the best batch.
        best_batch: which that is.
        throughputs: images a second by batch, of those that fitted into the time limit and the memory.
        evaluations: times that nets are called to draw one image: 1 for a GAN, the number of steps for a diffusion.
        parameters: in all.
        groups: parameters by group; groups may share some.
        weight_bytes: size of parameters and buffers as they are held.
        peak_bytes: most memory held; None where the system does not tell.
        peak_of: what that is the memory of: ``device`` from the start of the measurement, or the whole ``process``
            from its own start, data and training included.
        where: what the times depend on: device, threads, versions.
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
    """Measures what drawing images costs on the model's device.

    Args:
        model: draws samples.
        batches: sizes to look for the best throughput among.
        threads: CPU threads while measuring; the current number when not given.
        limit: seconds for the whole measurement. A slow sampler is timed less often and at fewer sizes, never less
            than once.
        seed: of the noise.

    Raises:
        LimnerError: an argument means nothing.
    """
    if not batches or min(batches) < 1 or limit <= 0 or (threads is not None and threads < 1):
        raise LimnerError(f"cost needs batches and threads from 1 and a positive limit, got {batches} and {limit:g} s")
    device = model.device
    generator = torch.Generator(device).manual_seed(seed)

    def draw(n: int) -> float:
        """Seconds that n images take."""
        _wait(device)
        began = time.perf_counter()
        to_uint8(model.sample(n, generator=generator, batch=n))
        _wait(device)
        return time.perf_counter() - began

    with _threads(threads):
        began = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        evaluations = count_evaluations(model, seed=seed)
        warm = _timed(draw, 1, _WARM_UPS, began + 0.15 * limit)
        alone = _timed(draw, 1, _REPEATS, began + 0.5 * limit)
        speeds = _speeds(draw, batches, alone, began, limit)
        where = describe(device)
    best = max(speeds, key=lambda b: speeds[b])
    peak, of = _peak(device)
    return Cost(
        latency_p50_ms=1000 * _quantile(alone, 0.5),
        latency_p95_ms=1000 * _quantile(alone, 0.95),
        repeats=len(alone),
        warm_ups=len(warm),
        throughput=speeds[best],
        best_batch=best,
        throughputs=speeds,
        evaluations=evaluations,
        parameters=sum(p.numel() for p in model.parameters()),
        groups={name: n["total"] for name, n in parameters(model).items()},
        weight_bytes=weight_bytes(model),
        peak_bytes=peak,
        peak_of=of,
        where=where,
    )


def _timed(draw: Callable[[int], float], n: int, repeats: int, until: float) -> list[float]:
    """Seconds of up to `repeats` draws; no new one begins when the clock is past `until`, but for the first."""
    found = [draw(n)]
    while len(found) < repeats and time.perf_counter() + found[-1] <= until:
        found.append(draw(n))
    return found


def _speeds(
    draw: Callable[[int], float], batches: tuple[int, ...], alone: list[float], began: float, limit: float
) -> dict[int, float]:
    """Images a second by batch, from small to large until time or memory ends."""
    speeds: dict[int, float] = {}
    slowest = 1 / _quantile(alone, 0.5)  # images a second, a first guess
    for i, batch in enumerate(sorted(set(batches))):
        left = began + limit - time.perf_counter()
        if batch == 1:
            speeds[1] = slowest
            continue
        if speeds and 2 * batch / slowest > left:  # a warm-up and a run at least
            break
        try:
            warm = draw(batch)
            if speeds and warm > began + limit - time.perf_counter():
                break
            share = time.perf_counter() + left / (len(set(batches)) - i)
            times = _timed(draw, batch, _REPEATS, min(share, began + limit))
        except (torch.OutOfMemoryError, MemoryError):
            break
        speeds[batch] = batch / _quantile(times, 0.5)
        slowest = max(slowest, speeds[batch])
    return speeds or {1: slowest}


def _quantile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed, by the nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def _wait(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_evaluations(model: GenerativeModel, *, seed: int = 0) -> int:
    """How often the model's own nets are called to draw one image.

    Its direct parts that have weights are counted, each call of each, but not calls within such a call. A model that
    draws another way says so itself by an attribute `evaluations`.
    """
    told = getattr(model, "evaluations", None)
    if isinstance(told, int):
        return told
    calls, inside = 0, 0

    def enter(*_: Any) -> None:
        nonlocal calls, inside
        calls += inside == 0
        inside += 1

    def leave(*_: Any) -> None:
        nonlocal inside
        inside -= 1

    with ExitStack() as hooks:
        for part in _parts(model):
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave, always_call=True).remove)
        model.sample(1, seed=seed)
    return max(calls, 1)


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """Direct parts with weights; those of lists one by one."""
    for part in model.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _parts(part)
        elif any(True for _ in part.parameters()):
            yield part


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, what is shared counted once."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    return sum(held.values())


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
    """What a training cost, from its log.

    Attributes:
        seconds: of training, saving and sampling.
        images: real images seen.
        images_per_second: of all that time.
        steps: updates of the whole model; None where the log has none.
        device: kind and name, as far as noted.
        threads: CPU threads; None where not noted.
        energy_joules: measured; None where nothing measured it.
        energy: one sentence: the energy, or why there is none.
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
    """What a training cost so far, interruptions not counted.

    Energy is told where an event of the run says `energy_joules`. It is never guessed from time and a nominal power.

    Raises:
        LimnerError: nothing was logged yet.
    """
    lines = run.metrics()
    marks = [r for r in [*lines, *run.events()] if "images" in r and r.get("seconds") is not None]
    last = max(marks, key=lambda r: (r["images"], r["seconds"]), default=None)
    if last is None or not last["images"]:
        raise LimnerError(f"{run.name} has logged nothing yet; let it train a little longer")
    env: dict[str, Any] = run.read_json("env.json") or {}
    seconds, images = float(last["seconds"]), int(last["images"])
    joules = next((float(e["energy_joules"]) for e in reversed(run.events()) if e.get("energy_joules")), None)
    known = [str(env[k]) for k in ("device", "device_name") if env.get(k)]
    return TrainingCost(
        seconds=seconds,
        images=images,
        images_per_second=images / seconds if seconds else math.inf,
        steps=int(lines[-1]["step"]) if lines and "step" in lines[-1] else None,
        device=", ".join(known) or None,
        threads=env.get("threads"),
        energy_joules=joules,
        energy="n/a, no meter was read during training; time and device bound it"
        if joules is None
        else f"{joules / 3600:.3g} Wh, measured",
    )
