"""Whole training steps as CUDA graphs, for steps that are the same operations each time.

A small net is bound by launches: the device waits while Python names one kernel after another. A CUDA graph is a list
of kernels and addresses that is launched as one. `Steps` takes the steps of a training as they are written; where it
can, it records one of them and replays it from then on, with the same numbers to the last bit where kernels are
deterministic.

A step can be recorded if its model says that it is `static`: between its batches, its noise and its updates there is no
decision of the host that changes from step to step. What does change is handled here:

* **batches** are drawn before the graph runs and copied into fixed places, from which the recorded step reads;
* **noise** comes from generators that are seeded by position before every step, and a graph reads their seeds anew;
* **numbers of a schedule** that a step asks for with ``data.scalar(...)`` are written into fixed places, and learning
  rates that change are tensors (`Updates.rates_to_device`);
* **decisions that repeat**, such as a penalty at every fourth step, are the model's `phase`: each has its own graph.

The first steps of every phase are taken as they are written. They are real steps, which also prepare what must not be
prepared while recording (moments of optimisers, choices of kernels). During one of them `HostReads` looks whether the
step ever waits for the device, because such a step cannot be recorded. Recording computes nothing, so when it fails
nothing is lost: the step is taken as it is written, and so are all later ones.

A graph holds addresses of memory and no numbers. It is no part of a checkpoint: after a resume it is made anew.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from limner.core import dist
from limner.core.errors import LimnerError
from limner.core.model import Data, GenerativeModel, Logs
from limner.core.options import GraphOption
from limner.core.stream import Stream
from limner.core.update import Updates

_WARM_UP = 3  # steps of a phase that are taken as they are written before one is recorded
_PHASES = 16  # graphs at most; a model with more kinds of steps than this has none that repeat often

_WAITS = {  # wait for the device on CUDA, though they have no tag that says so
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
}
_READS = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}  # on a CPU they call no operator


class NotRecorded(RuntimeError):
    """A step could not be recorded; nothing was computed."""


class HostRead(NotRecorded):
    """A step looked at a value of a tensor, or made one from numbers of the host."""


class HostReads:
    """A context in which every operation is noted, or refused, that a CUDA graph cannot hold, on any device.

    These are operations that wait for the device (``.item()``, ``bool(x)``, ``float(x)``, ``.cpu()``, `torch.equal`),
    whose result has a shape that depends on values (`torch.nonzero`, ``x[mask]``), and those that copy numbers from
    the host (`torch.tensor`). An eager step stands still at each of them, so this also finds what slows a step.

    Args:
        refuse: raise `HostRead` at the first one; otherwise they are listed in `found`.

    Attributes:
        found: what was done, in order.
        paused: look away meanwhile.

    >>> with HostReads() as reads:
    ...     x = torch.arange(3.0)
    ...     y = x[x > 1].sum().item()
    >>> reads.found
    ['index with a mask', '_local_scalar_dense']
    """

    def __init__(self, refuse: bool = False) -> None:
        self.refuse, self.paused = refuse, False
        self.found: list[str] = []
        self._modes = ExitStack()

    def __enter__(self) -> HostReads:
        self._modes.enter_context(_Methods(self._note))
        self._modes.enter_context(_Operators(self._note))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def _note(self, what: str) -> None:
        if self.paused:
            return
        self.found.append(what)
        if self.refuse:
            raise HostRead(f"{what}: a step that is recorded cannot do this")


class _Operators(TorchDispatchMode):
    """Tells of operators that a CUDA graph cannot hold."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tell = tell

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        reason = _reason(func, args, kwargs or {})
        if reason:
            self.tell(reason)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Tells of methods that read a tensor and call no operator when it lies on the CPU."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READS:
            self.tell(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _reason(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why a CUDA graph cannot hold an operation; None if it can."""
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_"):  # of whole numbers they have a fixed shape
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return f"{name} with a mask" if masks else None
    if name == "lift_fresh":
        return "torch.tensor of numbers of the host"
    if name in ("_to_copy", "copy_"):
        given = args[1] if name == "copy_" else kwargs.get("device") or args[0]
        there = given.device if isinstance(given, Tensor) else torch.device(given)
        return f"{name} between {args[0].device} and {there}" if there.type != args[0].device.type else None
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return name if name in _WAITS or tags & set(func.tags) else None


# ---- what a recorded step is given -----------------------------------------------------------------------------------

Schedule = Callable[[int], float]


class _Watched:
    """A stream that remembers what a step takes from it."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.start, self.batch = stream, stream.position, stream.batch
        self.batches: list[Any] = []
        self.schedules: list[tuple[Schedule, int]] = []  # and how many images into the step it was asked for
        self.asked_position = False
        self.reads = HostReads()

    @property
    def position(self) -> int:
        self.asked_position = True
        return self.stream.position

    def __next__(self) -> Any:
        self.reads.paused = True  # batches are drawn before a graph runs
        self.batches.append(next(self.stream))
        self.reads.paused = False
        return self.batches[-1]

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size)

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size)

    def scalar(self, schedule: Schedule) -> Tensor:
        self.schedules.append((schedule, self.stream.position - self.start))
        return self.stream.scalar(schedule)


class _Fixed:
    """Batches and scheduled numbers in fixed places, for a step like the one that was watched; noise as ever."""

    def __init__(self, like: _Watched) -> None:
        self.stream, self.batch, self.schedules = like.stream, like.batch, like.schedules
        self.batches = [_mapped(b, torch.clone) for b in like.batches]
        self.places = [t for b in self.batches for t in _tensors(b)]
        self.scalars = [like.stream.scalar(schedule) for schedule, _ in self.schedules]
        self.position = self._drawn = self._asked = 0

    def fill(self) -> None:
        """Draws the batches of the coming step and writes down all that it will read."""
        start = self.stream.position
        new = [t for b in [next(self.stream) for _ in self.batches] for t in _tensors(b)]
        if new:
            torch._foreach_copy_(self.places, new)
        for place, (schedule, images) in zip(self.scalars, self.schedules, strict=True):
            place.fill_(schedule(start + images))
        self.rewind(start)

    def rewind(self, start: int) -> None:
        """Lets the step that begins at `start` take it all from the beginning."""
        self.position, self._drawn, self._asked = start, 0, 0

    @property
    def used_up(self) -> bool:
        """Whether a step took all there is."""
        return self._drawn == len(self.batches) and self._asked == len(self.scalars)

    def __next__(self) -> Any:
        if self._drawn == len(self.batches):
            raise LimnerError(_UNLIKE)
        self._drawn += 1
        self.position += self.batch
        return self.batches[self._drawn - 1]

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size)

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size)

    def scalar(self, schedule: Schedule) -> Tensor:
        if self._asked == len(self.scalars):
            raise LimnerError(_UNLIKE)
        self._asked += 1
        return self.scalars[self._asked - 1]


_UNLIKE = "two steps of one phase took different batches or numbers; the model's phase() must tell them apart"


def _mapped(batch: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """The same batch with another tensor for each of its tensors."""
    if isinstance(batch, Tensor):
        return f(batch)
    if isinstance(batch, tuple):
        parts = [_mapped(part, f) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch


def _tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, tuple):
        for part in batch:
            yield from _tensors(part)


# ---- recorders -------------------------------------------------------------------------------------------------------


class Recorder(Protocol):
    """What can record a function and run the record."""

    def aside(self) -> AbstractContextManager[Any]:
        """Where the steps are taken that come before a record."""
        ...

    def record(self, region: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """A function that runs the record, and the tensor in which it leaves what `region` returns.

        Recording computes nothing.

        Raises:
            NotRecorded: it could not be recorded.
        """
        ...


class CUDARecorder:
    """CUDA graphs of one training, on one stream.

    They share their memory. That is sound because one runs after the other, and of what they leave only the result of
    the last one is read.

    Args:
        device: a CUDA device.
        generators: what draws the noise of a step, besides the device's own generator.
        optimisers: those of the step.
    """

    def __init__(
        self, device: torch.device, generators: Iterable[torch.Generator], optimisers: Iterable[torch.optim.Optimizer]
    ) -> None:
        self.generators, self.optimisers = list(generators), list(optimisers)
        self.default = torch.cuda.default_generators[device.index or 0]
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """On the stream that will record, so that no node of autograd belongs to another one."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, region: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """A CUDA graph of `region`, as a function that launches it, and its result."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        before = [(g, g.clone_state()) for g in (self.default, *self.generators)]
        gc.collect()  # nothing should be freed on the device while recording
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        try:
            out = self._captured(graph, region)
        except Exception as error:
            for generator, state in before:  # without this they stay marked as recording
                generator.graphsafe_set_state(state)
            first = error.__context__ or error  # ending a record that failed fails too
            raise NotRecorded(" ".join(str(first).split())[:200] or type(first).__name__) from error
        return graph.replay, out

    def _captured(self, graph: torch.cuda.CUDAGraph, region: Callable[[], Tensor]) -> Tensor:
        with torch.cuda.stream(self.stream), _capturable(self.optimisers):
            # Other threads may call CUDA meanwhile: those that read files ahead pin memory.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                return region()
            finally:
                graph.capture_end()


@contextmanager
def _capturable(optimisers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Lets optimisers be recorded: the fused ones keep all they need on the device, but torch wants to be told."""
    groups = [g for o in optimisers for g in o.param_groups if "capturable" in g]
    before = [g["capturable"] for g in groups]
    for g in groups:
        g["capturable"] = True
    try:
        yield
    finally:
        for g, was in zip(groups, before, strict=True):
            g["capturable"] = was


# ---- steps -----------------------------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """The step of one phase: what it reads, how it is run, and its logs."""

    data: _Fixed
    names: list[str] = field(default_factory=list)
    replay: Callable[[], None] | None = None
    values: Tensor = field(default_factory=lambda: torch.empty(0))


class Steps:
    """Takes the steps of a training: as they are written, or recorded.

    ``steps()`` is ``model.step(stream, update)`` in the training's precision; it returns the logs of the step and
    of its updates, without their history. Stream and updates have been told before (`begin`) that a step is coming.

    Args:
        model: in training.
        update: its updates.
        stream: its batches.
        bf16: whether the nets compute in bfloat16.
        graph: auto records steps where that is possible; True insists on it; False never does.
        warn: is told if steps that seemed to be static cannot be recorded.
        recorder: records steps; by default as CUDA graphs, on a CUDA device.
        warm_up: steps of each phase that are taken as they are written, at least 1.

    Attributes:
        replayed: steps that were replayed so far.

    Raises:
        LimnerError: `graph` insists and these steps cannot be recorded.
    """

    def __init__(
        self,
        model: GenerativeModel,
        update: Updates,
        stream: Stream,
        *,
        bf16: bool = False,
        graph: GraphOption = "auto",
        warn: Callable[[str], None] | None = None,
        recorder: Recorder | None = None,
        warm_up: int = _WARM_UP,
    ) -> None:
        self.model, self.update, self.stream, self.bf16 = model, update, stream, bf16
        self.graph, self.warn, self.warm_up, self.recorder = graph, warn, warm_up, recorder
        self.replayed = 0
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph] = {}
        reason = obstacle(model, update, None if recorder else stream.device)
        if graph is True and reason:
            raise _refused(reason)
        if not graph or reason:
            self.recorder = None
        elif recorder is None:
            self.recorder = CUDARecorder(stream.device, [stream.generator], update.optimisers.values())

    def __call__(self) -> Logs:
        """Takes a step."""
        phase = self.model.phase(self.stream) if self.recorder else None
        if self.recorder is None or phase is None:
            return self._taken(self.stream)
        graph = self._graphs.get(phase)
        if graph is None:
            return self._warmed_up(self.recorder, phase)
        if graph.replay is None:
            return self._recorded(self.recorder, graph)
        graph.data.fill()
        return self._replayed(graph, graph.replay)

    def _taken(self, data: Data) -> Logs:
        """A step as it is written."""
        with torch.autocast(self.stream.device.type, torch.bfloat16, enabled=self.bf16):
            logs = self.model.step(data, self.update)
        return {name: value.detach() for name, value in (logs | self.update.logs).items()}

    def _warmed_up(self, recorder: Recorder, phase: Hashable) -> Logs:
        """A step before the record. The last of them is looked at closely, to see whether it can be recorded."""
        if len(self._seen) > 4 * _PHASES:  # phases that do not repeat need not be counted for ever
            self._seen.clear()
        self._seen[phase] += 1
        data = _Watched(self.stream)
        with recorder.aside():
            if self._seen[phase] < self.warm_up or len(self._graphs) == _PHASES:
                return self._taken(data)
            before = _plain(self.model)
            with data.reads as reads:
                logs = self._taken(data)
        changed = [name for name, value in _plain(self.model).items() if before.get(name, value) != value]
        if reads.found:
            self._give_up(f"a step waits for the device ({reads.found[0]})")
        elif changed:
            self._give_up(f"a step changes {changed[0]}, which is no tensor")
        elif data.asked_position and type(self.model).phase is GenerativeModel.phase:
            self._give_up("a step looks at data.position, and the model has no phase() that does")
        else:
            self._graphs[phase] = _Graph(_Fixed(data))
        return logs

    def _recorded(self, recorder: Recorder, graph: _Graph) -> Logs:
        """Records a step and takes it; where it cannot be recorded, it is taken as it is written."""
        start, data = self.stream.position, graph.data

        def region() -> Tensor:
            logs = self._taken(data)
            graph.names = list(logs)
            return torch.stack([value.float() for value in logs.values()])

        data.fill()
        try:
            graph.replay, graph.values = recorder.record(region)
            if not data.used_up:
                raise LimnerError(_UNLIKE)
        except NotRecorded as error:
            self._give_up(str(error))
            data.rewind(start)
            self.stream.begin(start)  # its noise was not drawn
            return self._taken(data)
        return self._replayed(graph, graph.replay)

    def _replayed(self, graph: _Graph, replay: Callable[[], None]) -> Logs:
        replay()
        self.replayed += 1
        return dict(zip(graph.names, graph.values.clone().unbind(), strict=True))

    def _give_up(self, reason: str) -> None:
        """From now on steps are taken as they are written."""
        if self.graph is True:
            raise _refused(reason)
        self.recorder = None
        self._graphs.clear()
        if self.warn is not None:
            self.warn(f"steps are not recorded as CUDA graphs: {reason}")


def check(graph: GraphOption, model: GenerativeModel, update: Updates, device: torch.device) -> None:
    """Refuses ``train.graph=on`` where it cannot be had.

    Raises:
        LimnerError: why it cannot.
    """
    reason = obstacle(model, update, device) if graph is True else None
    if reason:
        raise _refused(reason)


def obstacle(model: GenerativeModel, update: Updates, device: torch.device | None = None) -> str | None:
    """Why the steps of a training cannot be recorded, or None if they may be.

    Args:
        model: in training.
        update: its updates.
        device: where CUDA graphs are to run; None asks for nothing of a device.
    """
    if device is not None and device.type != "cuda":
        return f"CUDA graphs need a CUDA device and this is {device}"
    if dist.world() > 1:
        return "CUDA graphs are for one device and this training has several"
    for group, optimiser in update.optimisers.items():
        if isinstance(optimiser, torch.optim.LBFGS):
            return f"L-BFGS (optim.{group}) decides as it goes how often it computes the loss"
    return None if model.static else f"a step of {model.spec.name} depends on decisions of the host"


def _refused(reason: str) -> LimnerError:
    return LimnerError(f"train.graph=on: {reason}; use train.graph=auto")


def _plain(model: nn.Module) -> dict[str, Any]:
    """Numbers, words and flags that modules keep outside of tensors."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | type(None))
    }
