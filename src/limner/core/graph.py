"""Training steps recorded as CUDA graphs.

The speed of a small net is limited by kernel launches: the device waits while Python launches one kernel after another.
A CUDA graph is a list of kernels and addresses that is launched at once. `Steps` runs the steps of a training. If it
can, it records a step and replays the recording from then on. The results are equal in all bits where kernels are
deterministic.

A step can be recorded if its model is `static`: the host makes no decision in it that changes between steps. The
inputs do change between steps, in these ways:

* **Batches** are drawn before the graph is launched and copied into fixed tensors, which the recorded step reads.
* **Noise** comes from generators that are seeded by position before every step; a graph reads their seeds anew.
* **Scheduled numbers**, which a step takes from ``data.scalar(...)``, are written into fixed tensors. Learning rates
  that change are tensors (`Updates.rates_to_device`).
* **Periodic decisions**, such as a penalty at every fourth step, are the model's `phase`. Each phase has its own graph.

The first steps of each phase run eagerly. They are normal training steps, and they also create what cannot be created
during recording (optimiser moments, kernel choices). During one of them `HostReads` checks whether the step waits for
the device, because such a step cannot be recorded. Recording computes nothing. If it fails, the step and all later ones
run eagerly, and nothing is lost.

A graph holds memory addresses and no values. It is not saved in checkpoints; a resumed training records it again.
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

_WARM_UP = 3  # eager steps of a phase before one is recorded
_PHASES = 16  # largest number of graphs; with more phases than this, none repeats often

_WAITS = {  # operators that wait for a CUDA device although no tag says so
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
}
_READS = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}  # they call no operator for a CPU tensor


class NotRecorded(RuntimeError):
    """A step could not be recorded. Nothing was computed."""


class HostRead(NotRecorded):
    """A step read a value of a tensor on the host, or made a tensor from host numbers."""


class HostReads:
    """A context that lists, or refuses, all operations that a CUDA graph cannot contain; it works on any device.

    Such operations wait for the device (``.item()``, ``bool(x)``, ``float(x)``, ``.cpu()``, `torch.equal`), have a
    result whose shape depends on values (`torch.nonzero`, ``x[mask]``), or copy numbers from the host (`torch.tensor`).
    An eager step waits at each of them, so this context also finds what slows a step down.

    Args:
        refuse: raise `HostRead` at the first such operation, instead of listing all in `operations`.

    Attributes:
        operations: the operations, in order.
        paused: whether operations are ignored for now.

    >>> with HostReads() as reads:
    ...     x = torch.arange(3.0)
    ...     y = x[x > 1].sum().item()
    >>> reads.operations
    ['index with a mask', '_local_scalar_dense']
    """

    def __init__(self, refuse: bool = False) -> None:
        self.refuse, self.paused = refuse, False
        self.operations: list[str] = []
        self._modes = ExitStack()

    def __enter__(self) -> HostReads:
        self._modes.enter_context(_Methods(self._note))
        self._modes.enter_context(_Operators(self._note))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def _note(self, operation: str) -> None:
        if self.paused:
            return
        self.operations.append(operation)
        if self.refuse:
            raise HostRead(f"{operation}: a step that is recorded cannot do this")


class _Operators(TorchDispatchMode):
    """Reports operators that a CUDA graph cannot contain."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.report = report

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        reason = _reason(func, args, kwargs or {})
        if reason:
            self.report(reason)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Reports methods that read a tensor and call no operator if it is on the CPU."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self.report = report

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READS:
            self.report(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _reason(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The reason why a CUDA graph cannot contain an operation; None if it can."""
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_"):  # with integer indices they have a fixed shape
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return f"{name} with a mask" if masks else None
    if name == "lift_fresh":
        return "torch.tensor of host numbers"
    if name in ("_to_copy", "copy_"):
        other = args[1] if name == "copy_" else kwargs.get("device") or args[0]
        device = other.device if isinstance(other, Tensor) else torch.device(other)
        return f"{name} between {args[0].device} and {device}" if device.type != args[0].device.type else None
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return name if name in _WAITS or tags & set(func.tags) else None


# ---- inputs of a recorded step ---------------------------------------------------------------------------------------

Schedule = Callable[[int], float]


class _ObservedInputs:
    """A stream that notes what a step takes from it."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.start, self.batch = stream, stream.position, stream.batch
        self.batches: list[Any] = []
        self.schedules: list[tuple[Schedule, int]] = []  # with the number of images that the step had drawn before
        self.position_read = False
        self.reads = HostReads()

    @property
    def position(self) -> int:
        self.position_read = True
        return self.stream.position

    def __next__(self) -> Any:
        self.reads.paused = True  # batches are drawn before a graph is launched
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


class _StaticInputs:
    """Fixed tensors for the batches and scheduled numbers of a step like the observed one; noise is drawn as usual."""

    def __init__(self, observed: _ObservedInputs) -> None:
        self.stream, self.batch, self.schedules = observed.stream, observed.batch, observed.schedules
        self.batches = [_mapped(b, torch.clone) for b in observed.batches]
        self.tensors = [t for b in self.batches for t in _tensors(b)]
        self.scalars = [self.stream.scalar(schedule) for schedule, _ in self.schedules]
        self.rewind(self.stream.position)

    def fill(self) -> None:
        """Draws the batches of the coming step and writes all of its inputs into the fixed tensors."""
        start = self.stream.position
        new = [t for b in [next(self.stream) for _ in self.batches] for t in _tensors(b)]
        if new:
            torch._foreach_copy_(self.tensors, new)
        for scalar, (schedule, images) in zip(self.scalars, self.schedules, strict=True):
            scalar.fill_(schedule(start + images))
        self.rewind(start)

    def rewind(self, start: int) -> None:
        """Lets the step at position `start` read all inputs again."""
        self.position, self._unread_batches, self._unread_scalars = start, [*self.batches], [*self.scalars]

    @property
    def exhausted(self) -> bool:
        """Whether the step read all inputs."""
        return not self._unread_batches and not self._unread_scalars

    def __next__(self) -> Any:
        self.position += self.batch
        return _pop(self._unread_batches)

    def randn(self, *size: int) -> Tensor:
        return self.stream.randn(*size)

    def rand(self, *size: int) -> Tensor:
        return self.stream.rand(*size)

    def scalar(self, schedule: Schedule) -> Tensor:
        return _pop(self._unread_scalars)


_PHASES_DIFFER = "two steps of one phase took different batches or numbers; the model's phase() must tell them apart"


def _pop(values: list[Any]) -> Any:
    if not values:
        raise LimnerError(_PHASES_DIFFER)
    return values.pop(0)


def _mapped(batch: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """The batch with `f` applied to each of its tensors."""
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
    """Records a function for replay."""

    def warm_up(self) -> AbstractContextManager[Any]:
        """A context for the eager steps before a recording."""
        ...

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Records `function` and computes nothing.

        Returns:
            A function that replays the recording, and the tensor to which it writes the result of `function`.

        Raises:
            NotRecorded: `function` cannot be recorded.
        """
        ...


class CUDARecorder:
    """Records CUDA graphs of one training, on one CUDA stream.

    The graphs share one memory pool. This is safe because they run one after the other and only the result of the last
    one is read.

    Args:
        device: a CUDA device.
        generators: the generators of the step's noise, besides the default generator of the device.
        optimisers: the optimisers of the step.
    """

    def __init__(
        self, device: torch.device, generators: Iterable[torch.Generator], optimisers: Iterable[torch.optim.Optimizer]
    ) -> None:
        self.generators, self.optimisers = list(generators), list(optimisers)
        self.default = torch.cuda.default_generators[device.index or 0]
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        """Uses the stream that will record, so that all autograd nodes belong to it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Records a CUDA graph of `function`; see `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        states = [(g, g.clone_state()) for g in (self.default, *self.generators)]
        gc.collect()  # so that no device memory is freed during recording
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        try:
            result = self._capture(graph, function)
        except Exception as error:
            for generator, state in states:  # a failed recording leaves the generators in recording mode
                generator.graphsafe_set_state(state)
            first = error.__context__ or error  # after a failure, ending the recording fails too
            raise NotRecorded(" ".join(str(first).split())[:200] or type(first).__name__) from error
        return graph.replay, result

    def _capture(self, graph: torch.cuda.CUDAGraph, function: Callable[[], Tensor]) -> Tensor:
        with torch.cuda.stream(self.stream), _capturable(self.optimisers):
            # Other threads may call CUDA meanwhile, for example to pin the memory of prefetched batches.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                return function()
            finally:
                graph.capture_end()


@contextmanager
def _capturable(optimisers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Marks optimisers as capturable, which PyTorch asks for although the fused ones keep all state on the device."""
    groups = [g for o in optimisers for g in o.param_groups if "capturable" in g]
    flags = [g["capturable"] for g in groups]
    for g in groups:
        g["capturable"] = True
    try:
        yield
    finally:
        for g, flag in zip(groups, flags, strict=True):
            g["capturable"] = flag


# ---- steps -----------------------------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """The recorded step of one phase: its inputs, its replay function and its logs."""

    data: _StaticInputs
    names: list[str] = field(default_factory=list)
    replay: Callable[[], None] | None = None
    values: Tensor = field(default_factory=lambda: torch.empty(0))


class Steps:
    """Runs the steps of a training, eagerly or as recorded CUDA graphs.

    ``steps()`` calls ``model.step(stream, update)`` in the training's precision. It returns the detached logs of the
    step and of its updates. Call `begin` of the stream and of the updates before each step.

    Args:
        model: the model, in training mode.
        update: the optimiser steps.
        stream: the batches.
        bf16: whether the nets compute in bfloat16.
        graph: ``auto`` records steps if possible, True requires it, False never records.
        warn: takes a message if steps of a static model cannot be recorded.
        recorder: records steps; default `CUDARecorder` on a CUDA device.
        warm_up: number of eager steps of each phase, at least 1.

    Attributes:
        replayed: number of replayed steps.

    Raises:
        LimnerError: `graph` is True and these steps cannot be recorded.
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
        self._counts: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph] = {}
        reason = obstacle(model, update, None if recorder else stream.device)
        if graph is True and reason:
            raise _refused(reason)
        if not graph or reason:
            self.recorder = None
        elif recorder is None:
            self.recorder = CUDARecorder(stream.device, [stream.generator], update.optimisers.values())

    def __call__(self) -> Logs:
        """Takes one step and returns its logs."""
        phase = self.model.phase(self.stream) if self.recorder else None
        if self.recorder is None or phase is None:
            return self._run_eagerly(self.stream)
        graph = self._graphs.get(phase)
        if graph is None:
            return self._warm_up(self.recorder, phase)
        if graph.replay is None:
            return self._record(self.recorder, graph)
        graph.data.fill()
        return self._replay(graph, graph.replay)

    def _run_eagerly(self, data: Data) -> Logs:
        with torch.autocast(self.stream.device.type, torch.bfloat16, enabled=self.bf16):
            logs = self.model.step(data, self.update)
        return {name: value.detach() for name, value in (logs | self.update.logs).items()}

    def _warm_up(self, recorder: Recorder, phase: Hashable) -> Logs:
        """Runs a step eagerly; the last one before the recording is checked for obstacles."""
        if len(self._counts) > 4 * _PHASES:  # bounds the memory for phases that do not repeat
            self._counts.clear()
        self._counts[phase] += 1
        data = _ObservedInputs(self.stream)
        with recorder.warm_up():
            if self._counts[phase] < self.warm_up or len(self._graphs) == _PHASES:
                return self._run_eagerly(data)
            before = _host_state(self.model)
            with data.reads as reads:
                logs = self._run_eagerly(data)
        changed = [name for name, value in _host_state(self.model).items() if before.get(name, value) != value]
        if reads.operations:
            self._stop_recording(f"a step waits for the device ({reads.operations[0]})")
        elif changed:
            self._stop_recording(f"a step changes {changed[0]}, which is no tensor")
        elif data.position_read and type(self.model).phase is GenerativeModel.phase:
            self._stop_recording("a step reads data.position, but the model does not define phase()")
        else:
            self._graphs[phase] = _Graph(_StaticInputs(data))
        return logs

    def _record(self, recorder: Recorder, graph: _Graph) -> Logs:
        """Records a step and replays it, or runs it eagerly if it cannot be recorded."""
        start, data = self.stream.position, graph.data

        def stacked_logs() -> Tensor:
            logs = self._run_eagerly(data)
            graph.names = list(logs)
            return torch.stack([value.float() for value in logs.values()])

        data.fill()
        try:
            graph.replay, graph.values = recorder.record(stacked_logs)
            if not data.exhausted:
                raise LimnerError(_PHASES_DIFFER)
        except NotRecorded as error:
            self._stop_recording(str(error))
            data.rewind(start)
            self.stream.begin(start)  # seeds the noise again
            return self._run_eagerly(data)
        return self._replay(graph, graph.replay)

    def _replay(self, graph: _Graph, replay: Callable[[], None]) -> Logs:
        replay()
        self.replayed += 1
        return dict(zip(graph.names, graph.values.clone().unbind(), strict=True))

    def _stop_recording(self, reason: str) -> None:
        """Makes all later steps eager."""
        if self.graph is True:
            raise _refused(reason)
        self.recorder = None
        self._graphs.clear()
        if self.warn is not None:
            self.warn(f"steps are not recorded as CUDA graphs: {reason}")


def check(graph: GraphOption, model: GenerativeModel, update: Updates, device: torch.device) -> None:
    """Raises a `LimnerError` with the reason if ``train.graph=on`` is not possible."""
    reason = obstacle(model, update, device) if graph is True else None
    if reason:
        raise _refused(reason)


def obstacle(model: GenerativeModel, update: Updates, device: torch.device | None = None) -> str | None:
    """The reason why the steps of a training cannot be recorded, or None if none is known.

    Args:
        model: the model, in training mode.
        update: the optimiser steps.
        device: the device of the graphs; None skips the check of the device.
    """
    if device is not None and device.type != "cuda":
        return f"CUDA graphs need a CUDA device and this is {device}"
    if dist.world() > 1:
        return "CUDA graphs are for one device and this training has several"
    for group, optimiser in update.optimisers.items():
        if isinstance(optimiser, torch.optim.LBFGS):
            return f"L-BFGS (optim.{group}) computes the loss a varying number of times"
    return None if model.static else f"a step of {model.spec.name} depends on decisions of the host"


def _refused(reason: str) -> LimnerError:
    return LimnerError(f"train.graph=on: {reason}; use train.graph=auto")


def _host_state(model: nn.Module) -> dict[str, Any]:
    """Numbers, strings and flags that are attributes of modules."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | type(None))
    }
