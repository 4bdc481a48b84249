"""The parts of `gpu.py`: the check of a recipe, and the speed of a net.

**A recipe** is made small (`limner.bench.shrink`) and asked four things. One step on the device and on the CPU, with
the same weights, images and noise, in float32 without TF32: how far apart are the gradients, as ||a - b|| / ||b||, and
the logs? Twenty steps as they are written, and ten, a checkpoint, and ten more with `train.graph=auto`: are all tensors
of both checkpoints the same bits, on one device? Are all logs finite? Have samples the shape of the data?

**A net** trains at its full size on digits in the device's memory, as the loop of `limner train` does it, with averages
and meters. ``plain`` is the same step with the usual means: `torch.optim.Adam` as it comes, a backward pass to all that
the loss depends on, and ``.item()`` of the loss of every update. What counts are real images seen.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limner import api
from limner.bench.shrink import SIZE, shrunk
from limner.config import recipe as recipes
from limner.core import checkpoint, train
from limner.core.capabilities import Stylises, Translates
from limner.core.device import describe, pick
from limner.core.ema import EMA
from limner.core.graph import Steps
from limner.core.model import GenerativeModel
from limner.core.progress import Meters, Silent
from limner.core.run import Run
from limner.core.stream import Stream
from limner.core.train import Interrupted
from limner.core.update import Updates

THREADS = torch.get_num_threads()
APART = 1e-3  # most that gradients and logs of float32 may differ between two devices, relative

# ---- one step on two devices -----------------------------------------------------------------------------------------


class SharedNoise(TorchDispatchMode):
    """Random numbers of the default generator come from the CPU's, whatever device asks, so that two devices agree."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        seeded = torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None
        if not seeded:
            return func(*args, **kwargs)
        if name == "native_dropout":  # what CUDA has in place of the CPU's chain of operators
            x, p, _ = args
            mask = torch.empty_like(x, device="cpu").bernoulli_(1 - p).to(x.device)
            return x * mask / (1 - p), mask.bool()
        if name.endswith("_") and isinstance(args[0], Tensor):  # bernoulli_, normal_, uniform_, …
            drawn = func(torch.empty_like(args[0], device="cpu"), *args[1:], **kwargs)
            return args[0].copy_(drawn)
        device = kwargs.get("device") or next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        args = tuple(a.cpu() if isinstance(a, Tensor) else a for a in args)
        return func(*args, **kwargs).to(device)


class Moved:
    """A stream of the CPU, for a step on another device."""

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self.stream, self.device, self.batch = stream, device, stream.batch

    @property
    def position(self) -> int:
        return self.stream.position

    def __next__(self) -> Any:
        return self._moved(next(self.stream))

    def _moved(self, batch: Any) -> Any:
        if isinstance(batch, Tensor):
            return batch.to(self.device)
        if isinstance(batch, tuple):
            parts = [self._moved(part) for part in batch]
            return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
        return batch

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size).to(self.device)

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size).to(self.device)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return self.stream.scalar(schedule).to(self.device)


def gradients(name: str, device: torch.device) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What each group would descend along in the first step, and its logs. Nothing is descended."""
    made = api.prepare(shrunk(name, device=str(device)))
    model, groups = made.model.train(), made.model.groups()
    found: dict[str, Tensor] = {}

    def update(group: str, loss: Tensor | Callable[[], Tensor]) -> None:
        loss = loss if isinstance(loss, Tensor) else loss()
        parameters = [p for p in groups[group].parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        found[group] = torch.cat([s.detach().double().cpu().flatten() for s in slopes if s is not None])

    stream = Stream(made.dataset, made.options.batch, device="cpu")
    stream.begin()
    with SharedNoise():
        logs = model.step(Moved(stream, device), update)
    return found, {k: float(v.detach()) for k, v in logs.items()}


def agreement(name: str, device: torch.device) -> dict[str, Any]:
    """How far the first step on the device is from that on the CPU."""
    (want, logs_want), (got, logs_got) = gradients(name, torch.device("cpu")), gradients(name, device)
    apart = {f"grad/{g}": float((got[g] - want[g]).norm() / want[g].norm().clamp_min(1e-30)) for g in want}
    apart |= {k: abs(logs_got[k] - v) / max(1.0, abs(v)) for k, v in logs_want.items()}
    worst = max(apart, key=lambda k: math.inf if math.isnan(apart[k]) else apart[k])
    return {"ok": apart[worst] <= APART, "apart": apart[worst], "worst": worst}


# ---- twenty steps ----------------------------------------------------------------------------------------------------


class StopsAt(Silent):
    """Interrupts the training as Ctrl-C does, once it has seen so many images."""

    def __init__(self, images: int) -> None:
        self.images = images

    def step(self, position: int) -> None:
        if position == self.images:
            signal.raise_signal(signal.SIGINT)


class Counted(Steps):
    """Steps that can be found again, to ask how many were replayed."""

    made: list[Steps] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.made.append(self)


def fitted(made: api.Prepared, run: Run, start: Any = None, progress: Silent | None = None) -> GenerativeModel:
    """A training without scores and report."""
    run.lock()
    try:
        return train.fit(
            made.options,
            made.model,
            made.dataset,
            made.optimisers,
            run,
            device=made.device,
            start=start,
            progress=progress,
        )
    finally:
        run.unlock()


def saved(run: Run) -> dict[str, Tensor]:
    newest = checkpoint.read(run.latest)
    return newest.model | checkpoint.pack(newest.trainer)[0]


def unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    return [k for k in a if k not in b or not torch.equal(a[k], b[k])] + [k for k in b if k not in a]


def twenty(name: str, device: torch.device, folder: Path) -> dict[str, Any]:
    """Twenty steps against ten, a save, a load and ten more; as they are written against recorded ones."""

    def prepared(graph: object) -> api.Prepared:
        return api.prepare(shrunk(name, device=str(device), graph=graph))

    train.Steps = Counted  # type: ignore[misc]
    made = prepared(False)
    whole = Run.create(made.recipe.to_dict(), folder / "whole")
    model = fitted(made, whole)
    Counted.made.clear()
    made = prepared("auto")
    halves = Run.create(made.recipe.to_dict(), folder / "halves")
    try:
        fitted(made, halves, progress=StopsAt(10 * made.options.batch))
    except Interrupted:
        start, _ = checkpoint.newest(halves.checkpoints)
        fitted(prepared("auto"), halves, start)
    other = unequal(saved(whole), saved(halves))
    numbers = [v for line in whole.metrics() for v in line.values() if isinstance(v, int | float)]
    found = {
        "same_bits": not other,
        "finite": all(map(math.isfinite, numbers)),
        "shape": shaped(model, tuple(made.dataset.shape)),
        "static": model.static,
        "replayed": sum(steps.replayed for steps in Counted.made),
        "notes": [e["message"] for e in halves.events() if e["event"] == "warning"],
    }
    if other:  # is it the graph or the checkpoint?
        made = prepared("auto")
        again = Run.create(made.recipe.to_dict(), folder / "again")
        fitted(made, again)
        found |= {"unequal": other[:5], "graph_same_bits": not unequal(saved(whole), saved(again))}
    recorded = device.type != "cuda" or not model.static or found["replayed"] > 0
    return {"ok": found["same_bits"] and found["finite"] and found["shape"] and recorded} | found


def shaped(model: GenerativeModel, shape: tuple[int, ...]) -> bool:
    """Whether samples are finite and have the shape of the data."""
    if isinstance(model, Translates | Stylises):
        channels = model.source[0] if isinstance(model, Translates) else 3
        x = torch.zeros(2, channels, SIZE, SIZE, device=model.device)
        y = model.translate(x) if isinstance(model, Translates) else model.decode_features(model.encode_features(x))
        return bool(torch.isfinite(y).all()) and y.shape[2:] == x.shape[2:]
    y = model.sample(4, seed=0)
    return bool(torch.isfinite(y).all()) and tuple(y.shape[1:]) == shape


def recipe(name: str, device: torch.device) -> dict[str, Any]:
    """All checks of a recipe; one that fails leaves the others standing."""
    found: dict[str, Any] = {}
    with precision("fp32"):
        found["agreement"] = caught(lambda: agreement(name, device))
        with tempfile.TemporaryDirectory() as folder:
            found["twenty"] = caught(lambda: twenty(name, device, Path(folder)))
    return found | {"ok": all(part["ok"] for part in found.values())}


# ---- speed -----------------------------------------------------------------------------------------------------------

PICTURES = {"name": "mnist-5k", "channels": 3, "limit": 512}
NETS: dict[str, tuple[str, dict[str, Any], int, int]] = {  # recipe, data, batch, pixels of a side
    "mlp GAN 28": ("gan-mnist", {"name": "mnist-5k"}, 64, 28),
    "VAE 28": ("vae-mnist", {"name": "mnist-5k"}, 128, 28),
    "DCGAN 32": ("dcgan-32", PICTURES, 64, 32),
    "DCGAN 64": ("dcgan-64", PICTURES, 128, 64),
    "WGAN-GP 64": ("wgan-gp-64", PICTURES, 64, 64),
    "R3GAN 64": ("r3gan-64", PICTURES, 64, 64),
    "pix2pix 256 b1": ("pix2pix-facades", {"name": "pairs", "path": "mnist-5k", "task": "colourise"}, 1, 256),
    "pix2pix 256 b16": ("pix2pix-facades", {"name": "pairs", "path": "mnist-5k", "task": "colourise"}, 16, 256),
    "CycleGAN 256 b1": ("cyclegan-horse2zebra", {"name": "domains", "a": "mnist-5k", "b": "digits"}, 1, 256),
}
FEW = {"channels": 3, "limit": 64}  # pictures of translators
CPU_SIDE, CPU_BATCH, CPU_WIDTH = 32, 16, 16  # what a net is cut down to for a CPU, which only shows that it runs


def net(name: str, device: torch.device) -> api.Prepared:
    """A net at its full size on a GPU, and cut down on a CPU."""
    source, data, batch, side = NETS[name]
    tree = recipes.load(source).to_dict()
    if device.type == "cpu":
        side, batch = min(side, CPU_SIDE), min(batch, CPU_BATCH)
        for part in (v for v in tree["model"].values() if isinstance(v, dict)):
            part |= {k: min(part[k], CPU_WIDTH) for k in ("width", "blocks") if k in part}
            part |= {k: 16 for k in ("patch",) if k in part}
    extra = FEW if data["name"] in ("pairs", "domains") else {}
    tree["data"] = {**data, **extra, "size": side}
    tree["train"] |= {"batch": batch, "device": str(device), "channels_last": False, "threads": None}
    return api.prepare(recipes.load(tree))


@contextmanager
def precision(name: str) -> Iterator[None]:
    """The matrix units' mode for float32: tf32, or the whole float32."""
    flags = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    before = [getattr(where, flag) for where, flag in flags]
    for where, flag in flags:
        setattr(where, flag, name != "fp32")
    try:
        yield
    finally:
        for (where, flag), was in zip(flags, before, strict=True):
            setattr(where, flag, was)


def ours(made: api.Prepared, bf16: bool, how: str, channels_last: bool) -> Callable[[], int]:
    """A step of the loop of `limner train`; returns the images seen so far."""
    model = made.model.to(memory_format=torch.channels_last) if channels_last else made.model
    model.train()
    if "compile" in how:
        for child in model.children():
            child.compile()
    stream = Stream(made.dataset, made.options.batch, device=made.device, channels_last=channels_last)
    update, meters = Updates(model.groups(), made.optimisers), Meters()
    ema = EMA(model, made.options.ema_images) if made.options.ema_images else None
    steps = Steps(model, update, stream, bf16=bf16, graph="graph" in how)

    def take() -> int:
        stream.begin()
        update.begin(0, 1)
        before = stream.position
        logs = steps()
        if ema is not None:
            ema.update(stream.position - before)
        meters.add(logs)
        return stream.position

    return take


def plain(made: api.Prepared, bf16: bool) -> Callable[[], int]:
    """The same step with the usual means."""
    model, stream = made.model.train(), Stream(made.dataset, made.options.batch, device=made.device)
    rates = {g: made.optimisers[g] for g in model.groups()}
    adams = {g: torch.optim.Adam(m.parameters(), rates[g].lr, rates[g].betas) for g, m in model.groups().items()}

    def update(group: str, loss: Tensor) -> None:
        adams[group].zero_grad()
        with torch.autocast(made.device.type, enabled=False):
            loss.backward()
        adams[group].step()
        torch.clear_autocast_cache()
        loss.item()

    def take() -> int:
        stream.begin()
        with torch.autocast(made.device.type, torch.bfloat16, enabled=bf16):
            model.step(stream, update)
        return stream.position

    return take


def clock(device: torch.device, run: Callable[[], None]) -> float:
    """Seconds that `run` takes the device."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000


def speed(name: str, how: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Images a second of a net.

    Args:
        name: of `NETS`.
        how: precision and way, such as ``tf32 graph`` or ``bf16 channels_last compile graph``.
        device: where.
        seconds: of measuring, in five chunks, after warming up.
    """
    kind, *way = how.split()
    torch.set_num_threads(THREADS if device.type == "cuda" else 1)  # a CPU only shows that it runs, often a busy one
    with precision(kind):
        made = net(name, device)
        cuda, bf16 = device.type == "cuda", kind == "bf16"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        take = plain(made, bf16) if "plain" in way else ours(made, bf16, " ".join(way), "channels_last" in way)
        seen = 0

        def run(n: int) -> None:
            nonlocal seen
            for _ in range(n):
                seen = take()

        began = time.perf_counter()
        # A record comes after three steps of a phase, and CycleGAN's pool fills in fifty.
        run(60 if cuda and made.recipe.model.name == "cyclegan" else 8 if cuda else 2)
        first = clock(device, lambda: None) + time.perf_counter() - began
        once = clock(device, lambda: run(1))
        n, rates = max(1, round(seconds / 5 / once)), []
        for _ in range(5 if once < seconds else 2):
            before, took = seen, clock(device, lambda: run(n))
            rates.append((seen - before) / took)
    rate = statistics.median(rates)
    found = {
        "ok": math.isfinite(rate),
        "rate": rate,
        "low": min(rates),
        "high": max(rates),
        "batch": made.options.batch,
    }
    return found | {
        "side": made.dataset.shape[-1],
        "chunks": len(rates),
        "steps_in_a_chunk": n,
        "ms_a_step": 1000 * (seen - before) / n / rate,
        "warm_up_seconds": round(first, 2),
        "peak_MB": round(torch.cuda.max_memory_allocated() / 1e6) if cuda else None,
    }


# ---- a process that does one piece after another ---------------------------------------------------------------------


def caught(f: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `f` finds, or the error that it ends with."""
    try:
        return f()
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def facts(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    cuda = device.type == "cuda"
    return {
        "ok": True,
        **describe(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "capability": list(torch.cuda.get_device_capability(device)) if cuda else None,
        "memory_GB": round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1) if cuda else None,
    }


def main() -> None:
    """Reads a piece of work a line, writes what was found a line; all else that is printed goes to the error output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    device = pick(sys.argv[1])
    for line in sys.stdin:
        work = json.loads(line)
        began = time.perf_counter()
        if work["kind"] == "facts":
            found = caught(lambda: facts(device))
        elif work["kind"] == "recipe":
            found = caught(lambda name=work["name"]: recipe(name, device))
        else:
            found = caught(lambda w=work: speed(w["name"], w["how"], device, w["seconds"]))
        found["seconds"] = round(time.perf_counter() - began, 2)
        if device.type == "cuda":
            torch.compiler.reset()
            torch.cuda.synchronize()  # a broken context ends this process here, and the next piece gets a new one
            torch.cuda.empty_cache()
        answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
