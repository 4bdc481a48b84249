"""Recorded steps give the bits of eager ones. No CUDA is needed: a tape of operators stands for a CUDA graph.

Like a graph, a tape holds operators and the tensors that they read and wrote. Running it calls no Python of the step.
So it has the faults that a graph would have: a frozen host number, or a tensor that was replaced instead of changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import limner
from limner import api
from limner.bench.shrink import shrunk
from limner.config import catalogue
from limner.config import recipe as recipes
from limner.config.spec import Spec
from limner.core import graph
from limner.core.checkpoint import pack, read
from limner.core.errors import LimnerError
from limner.core.graph import HostRead, HostReads, NotRecorded, Steps
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.optimisers import SGD, Adam
from limner.core.schedule import Cosine
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.core.yaml_text import Text

RECIPES = [r for r in limner.list_recipes() if catalogue.find("model", recipes.load(r).model.name).static]


class Tape(TorchDispatchMode):
    """Records operators in order; `run` calls them again on the same tensors and writes results to the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = alias(args), alias(kwargs)
        out = func(*args, **kwargs)
        read = {t.untyped_storage().data_ptr() for t in flat((args, kwargs))}
        new = [t for t in flat(out) if t.untyped_storage().data_ptr() not in read]
        view = not new and not func._schema.is_mutable and bool(flat(out))
        if not view and torch.Tag.inplace_view not in func.tags:
            self.calls.append((func, *inputs, alias(flat(out)) if new else []))
        return out

    def run(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self.calls:
                result = func(*args, **kwargs)
                for output, value in zip(outputs, flat(result) if outputs else [], strict=True):
                    if output.data_ptr() != value.data_ptr():
                        output.copy_(value)


def alias(values: Any) -> Any:
    """New tensors on the same memory, so that their shape cannot change in place."""
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, dict):
        return {k: alias(v) for k, v in values.items()}
    return type(values)(alias(v) for v in values) if isinstance(values, (list, tuple)) else values


def flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [t for v in values for t in flat(v)] if isinstance(values, (list, tuple)) else []


class Taped:
    """A recorder with a tape. The tape computes while it records; this is undone, as recording computes nothing."""

    def __init__(self, model: nn.Module, update: Updates, stream: Stream, fails: str = "") -> None:
        self.model, self.update, self.stream, self.fails = model, update, stream, fails
        self.records = 0

    def warm_up(self) -> AbstractContextManager[None]:
        return nullcontext()

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.records += 1
        with self.undone() as restore:
            try:
                with HostReads(refuse=True), Tape() as tape:
                    out = function()
            finally:
                restore()
        if self.fails:
            raise NotRecorded(self.fails)
        return tape.run, out

    @contextmanager
    def undone(self) -> Iterator[Callable[[], None]]:
        """Yields a function that restores weights, optimiser state and generators."""
        values = [(t, t.clone()) for t in self.persistent()]
        noise = [(g, g.get_state()) for g in (torch.default_generator, self.stream.generator)]

        @torch.no_grad()
        def restore() -> None:
            for t, value in values:
                t.copy_(value)
            for g, state in noise:
                g.set_state(state)

        yield restore

    def persistent(self) -> Iterator[Tensor]:
        yield from flat(self.model.state_dict())
        yield from self.model.buffers()
        yield from flat(self.update.state())


def prepared(name: str, seed: int = 0) -> tuple[GenerativeModel, Updates, Stream]:
    setup = api.prepare(shrunk(name))
    model = setup.model.train()
    for module in model.modules():  # a pool that is full after two steps, so that the third can be recorded
        if hasattr(module, "held"):
            module.held = module.held[:16]
    update = Updates(model.groups(), setup.optimisers)
    update.rates_to_device()
    return model, update, Stream(setup.dataset, setup.options.batch, seed)


def run_steps(steps: Steps, n: int) -> list[dict[str, float]]:
    """The logs of n steps of a training of n steps."""
    logs = []
    for _ in range(n):
        steps.stream.begin()
        steps.update.begin(steps.stream.position, n * steps.stream.batch)
        logs.append({k: float(v) for k, v in steps().items()})
    return logs


def weights(steps: Steps) -> list[Tensor]:
    return [t.clone() for t in [*flat(steps.model.state_dict()), *flat(steps.update.state())]]


def both(name: str, n: int) -> tuple[Steps, Steps]:
    """The same training, eager and recorded, after n steps; their logs and weights are equal in all bits."""
    eager = Steps(*prepared(name), graph=False)
    model, update, stream = prepared(name)
    recorded = Steps(model, update, stream, recorder=Taped(model, update, stream), warn=pytest.fail, warm_up=2)
    assert run_steps(eager, n) == run_steps(recorded, n)
    assert stream.position == eager.stream.position
    for a, b in zip(weights(eager), weights(recorded), strict=True):
        assert torch.equal(a, b)
    return eager, recorded


# ---- every static recipe ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_step_reads_nothing_and_gives_the_bits_of_the_eager_one(name: str) -> None:
    lazy = recipes.load(name).model.kwargs.get("penalty_every", 1) > 1
    _, recorded = both(name, 14 if lazy else 6)
    assert recorded.replayed >= 2


def test_most_recipes_are_static() -> None:
    others = {recipes.load(r).model.name for r in limner.list_recipes() if r not in RECIPES}
    assert others == {"mean_flow", "progressive_gan", "style_transfer"}


def test_each_phase_of_a_lazy_penalty_has_its_own_recording() -> None:
    _, recorded = both("r1gan-mnist", 14)  # penalties at steps 0, 4, 8 and 12
    assert recorded.replayed == 10  # all but the first two of each kind
    assert isinstance(recorded.recorder, Taped)
    assert recorded.recorder.records == 2


def test_a_schedule_is_read_anew_by_each_replay() -> None:
    model, update, stream = prepared("r3gan-mnist")
    model.gamma = Cosine(8.0, 0.5, length=80)
    steps = Steps(model, update, stream, recorder=Taped(model, update, stream), warm_up=1)
    read = []
    for _ in range(5):
        stream.begin()
        expected = model.gamma(stream.position)
        steps()
        if steps.replayed:
            read.append((float(next(iter(steps._graphs.values())).data.scalars[0]), expected))
    assert len(read) == 4
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in read)
    assert len({a for a, _ in read}) == 4


def test_bfloat16_is_recorded_too() -> None:
    model, update, stream = prepared("gan-mnist")
    eager = Steps(model, update, stream, bf16=True, graph=False)
    model, update, stream = prepared("gan-mnist")
    recorded = Steps(model, update, stream, bf16=True, recorder=Taped(model, update, stream), warm_up=2)
    assert run_steps(eager, 6) == run_steps(recorded, 6)
    assert recorded.replayed == 4


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Steps]]:
    """A function that lets all later trainings record their steps, and returns the list of these."""
    replayed: list[Steps] = []

    class TapedSteps(Steps):
        def __init__(self, model: GenerativeModel, update: Updates, stream: Stream, **more: Any) -> None:
            super().__init__(model, update, stream, recorder=Taped(model, update, stream), warm_up=2, **more)
            replayed.append(self)

    def begin() -> list[Steps]:
        monkeypatch.setattr("limner.core.train.Steps", TapedSteps)
        return replayed

    return begin


def assert_same_state(run: limner.Run, other: limner.Run) -> None:
    a, b = (read(r.latest) for r in (run, other))
    for x, y in ((a.model, b.model), (pack(a.trainer)[0], pack(b.trainer)[0])):
        assert x.keys() == y.keys()
        assert [k for k in x if not torch.equal(x[k], y[k])] == []


@pytest.mark.parametrize("name", ["r1gan-mnist", "r3gan-mnist", "dcgan-32", "conv-vae-mnist"])
def test_a_resumed_training_records_its_steps_again(
    name: str, tmp_path: Path, taped: Callable[[], list[Steps]]
) -> None:
    whole = limner.train(shrunk(name, ema_images=40).to_dict(), out=tmp_path / "whole")
    replayed = taped()
    recipe = shrunk(name, ema_images=40, images=80).to_dict()
    limner.train(recipe, out=tmp_path / "half")
    half = limner.resume(tmp_path / "half", images=160)
    assert [steps.replayed > 4 for steps in replayed] == [True, True]
    assert_same_state(whole, half)


@pytest.mark.parametrize("name", ["gan-mnist", "r1gan-mnist"])
def test_a_training_that_is_rolled_back_records_its_steps_again(
    name: str, tmp_path: Path, taped: Callable[[], list[Steps]], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Stream.__next__

    def draw_bad(self: Stream) -> Any:
        bad = self.salt == 0 and 72 <= self.position < 128
        batch = draw(self)
        return batch._replace(x=batch.x * math.nan) if bad else batch

    monkeypatch.setattr(Stream, "__next__", draw_bad)
    recipe = shrunk(name, ema_images=40, guard=True, checkpoint_images=40).to_dict()
    eager = limner.train(recipe, out=tmp_path / "eager")
    replayed = taped()
    recorded = limner.train(recipe, out=tmp_path / "recorded")
    assert [steps.replayed > 4 for steps in replayed] == [True, True]
    for run in (eager, recorded):
        assert [e["to"] for e in run.events() if e["event"] == "rollback"] == [40]
    assert_same_state(eager, recorded)


# ---- models made for a test ------------------------------------------------------------------------------------------


class Line(GenerativeModel):
    """One number a, which learns the mean of the images."""

    static = True

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))
        self.spec = Spec("model", "line")

    def groups(self) -> dict[str, nn.Module]:
        return {"a": self}

    def step(self, data: Data, update: Update) -> Logs:
        loss = (next(data).x.mean() - self.a).square() * self.factor(data)
        update("a", loss)
        return {"loss/a": loss}

    def factor(self, data: Data) -> Tensor | float:
        return 1.0


class Skips(Line):
    def factor(self, data: Data) -> Tensor:
        return data.scalar(lambda images: math.inf if images // data.batch in (4, 9, 10) else 1.0)


class Waits(Line):
    def factor(self, data: Data) -> float:
        return self.a.item() + 1


class Counts(Line):
    steps = 0

    def factor(self, data: Data) -> float:
        self.steps = self.steps + 1
        return 1.0 / self.steps


class ReadsPosition(Line):
    def factor(self, data: Data) -> float:
        return 1.0 + data.position


class NeverTheSame(ReadsPosition):
    def phase(self, data: Data) -> int:
        return data.position


class Lies(Line):
    """Takes two batches in its second step, which its phase does not tell."""

    def phase(self, data: Data) -> tuple[()]:
        return ()

    def factor(self, data: Data) -> Tensor | float:
        return next(data).x.mean() + 2 if data.position // data.batch == 2 else 1.0


def small(model: Line) -> tuple[Line, Updates, Stream]:
    dataset = api.prepare(shrunk("gan-mnist")).dataset
    update = Updates(model.groups(), {"a": SGD(lr=0.1, decay=0.5)})
    update.rates_to_device()
    return model, update, Stream(dataset, 8)


def steps_of(model: Line, warnings: list[str] | None = None, fails: str = "", **options: Any) -> Steps:
    model, update, stream = small(model)
    warn = None if warnings is None else warnings.append
    return Steps(model, update, stream, recorder=Taped(model, update, stream, fails), warn=warn, warm_up=2, **options)


@pytest.mark.parametrize("kind", [Line, Skips])
def test_skipped_updates_are_counted_and_rates_fall_in_replays(kind: type[Line]) -> None:
    eager, recorded = Steps(*small(kind()), graph=False), steps_of(kind())
    assert repr(run_steps(eager, 10)) == repr(run_steps(recorded, 10))  # inf and nan compare as words
    assert recorded.replayed == 8
    assert torch.equal(eager.model.a, recorded.model.a)
    assert float(recorded.update.skipped) == float(eager.update.skipped) == (3 if kind is Skips else 0)
    assert float(recorded.update.streak) == float(eager.update.streak) == (2 if kind is Skips else 0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Waits, "waits for the device (_local_scalar_dense)"),
        (Counts, "changes steps, which is no tensor"),
        (ReadsPosition, "reads data.position"),
    ],
)
def test_steps_that_only_claim_to_be_static_run_eagerly(kind: type[Line], reason: str) -> None:
    warnings: list[str] = []
    eager, recorded = Steps(*small(kind()), graph=False), steps_of(kind(), warnings)
    assert run_steps(eager, 6) == run_steps(recorded, 6)
    assert torch.equal(eager.model.a, recorded.model.a)
    assert recorded.replayed == 0
    assert len(warnings) == 1
    assert reason in warnings[0]


def test_a_failed_recording_changes_nothing() -> None:
    warnings: list[str] = []
    eager, recorded = Steps(*small(Line()), graph=False), steps_of(Line(), warnings, "operation not permitted")
    assert run_steps(eager, 6) == run_steps(recorded, 6)
    assert torch.equal(eager.model.a, recorded.model.a)
    assert recorded.stream.position == eager.stream.position
    assert warnings == ["steps are not recorded as CUDA graphs: operation not permitted"]


@pytest.mark.parametrize("name", ["tricks-mnist", "wgan-gp-mnist", "conv-vae-mnist"])  # with dropout, batches, noise
def test_a_failed_recording_of_a_real_recipe_changes_nothing(name: str) -> None:
    eager = Steps(*prepared(name), graph=False)
    model, update, stream = prepared(name)
    recorded = Steps(model, update, stream, recorder=Taped(model, update, stream, "no"), warm_up=2)
    assert run_steps(eager, 5) == run_steps(recorded, 5)
    assert all(torch.equal(a, b) for a, b in zip(weights(eager), weights(recorded), strict=True))


def test_a_phase_that_hides_a_batch_is_an_error() -> None:
    with pytest.raises(LimnerError, match="must tell them apart"):
        run_steps(steps_of(Lies()), 4)


def test_phases_that_never_repeat_are_neither_recorded_nor_stored() -> None:
    steps = steps_of(NeverTheSame())
    run_steps(steps, 200)
    assert steps.replayed == 0
    assert len(steps._counts) < 100


# ---- the calls of CUDA -----------------------------------------------------------------------------------------------


class FakeGraph:
    """`torch.cuda.CUDAGraph` with a tape inside; it lists its calls in order."""

    calls: ClassVar[list[str]] = []
    undo: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    invalid: ClassVar[bool] = False

    def register_generator_state(self, generator: Any) -> None:
        self.calls.append("register")

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self.calls.append(f"begin {pool} {capture_error_mode}")
        self.tape = Tape()
        self.tape.__enter__()

    def capture_end(self) -> None:
        self.calls.append("end")
        self.tape.__exit__(None, None, None)
        type(self).undo()
        if self.invalid:
            raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.tape.run()


class FakeGenerator:
    def __init__(self) -> None:
        self.state = "healthy"

    def clone_state(self) -> str:
        return self.state

    def graphsafe_set_state(self, state: str) -> None:
        self.state = state


class FakeStream:
    def __init__(self, *device: Any) -> None: ...
    def wait_stream(self, other: FakeStream) -> None: ...


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> type[FakeGraph]:
    FakeGraph.calls, FakeGraph.invalid = [], False
    for name, value in {
        "CUDAGraph": FakeGraph,
        "Stream": FakeStream,
        "stream": lambda stream: nullcontext(),
        "current_stream": FakeStream,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "graph_pool_handle": lambda: "pool",
        "default_generators": [FakeGenerator()],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return FakeGraph


def on_fake_cuda(model: nn.Module, update: Updates, stream: Stream) -> graph.CUDARecorder:
    noise = [FakeGenerator()]
    recorder = graph.CUDARecorder(torch.device("cuda"), noise, update.optimisers.values())  # type: ignore[arg-type]
    undo = Taped(model, update, stream)

    def record(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        with undo.undone() as restore:
            FakeGraph.undo = restore
            return type(recorder).record(recorder, function)

    recorder.record = record  # type: ignore[method-assign]
    return recorder


@pytest.mark.parametrize("name", ["r1gan-mnist", "wgan-gp-mnist"])
def test_the_recorder_of_cuda_makes_its_calls_in_order(name: str, fake_cuda: type[FakeGraph]) -> None:
    eager = Steps(*prepared(name), graph=False)
    setup = prepared(name)
    recorder = on_fake_cuda(*setup)
    recorded = Steps(*setup, recorder=recorder, warn=pytest.fail, warm_up=2)
    assert run_steps(eager, 6) == run_steps(recorded, 6)
    assert all(torch.equal(a, b) for a, b in zip(weights(eager), weights(recorded), strict=True))
    assert recorded.replayed >= 2
    assert fake_cuda.calls == ["register", "begin pool thread_local", "end"]
    assert not any(g.get("capturable") for o in setup[1].optimisers.values() for g in o.param_groups)


def test_a_failed_capture_gives_its_first_reason_and_restores_the_generators(fake_cuda: type[FakeGraph]) -> None:
    setup = prepared("gan-mnist")
    recorder = on_fake_cuda(*setup)
    fake_cuda.invalid = True

    def function() -> Tensor:
        assert all(g["capturable"] for o in setup[1].optimisers.values() for g in o.param_groups)
        for generator in (recorder.default, *recorder.generators):
            generator.state = "stuck"  # type: ignore[attr-defined]
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    with pytest.raises(NotRecorded, match="not permitted when stream is capturing Compile"):
        recorder.record(function)
    assert {g.state for g in (recorder.default, *recorder.generators)} == {"healthy"}  # type: ignore[attr-defined]
    assert not any(g["capturable"] for o in setup[1].optimisers.values() for g in o.param_groups)


# ---- the option ------------------------------------------------------------------------------------------------------


def test_on_gives_the_reason_in_one_line() -> None:
    with pytest.raises(LimnerError, match=r"train\.graph=on: a step waits .*; use train\.graph=auto"):
        run_steps(steps_of(Waits(), graph=True), 4)
    with pytest.raises(LimnerError, match=r"train\.graph=on: operation not permitted"):
        run_steps(steps_of(Line(), fails="operation not permitted", graph=True), 4)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("gan-mnist", "need a CUDA device and this is cpu"),
        ("stylise", "need a CUDA device and this is cpu"),
    ],
)
def test_on_is_refused_without_cuda_before_anything_is_written(recipe: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=reason) as error:
        limner.train(shrunk(recipe, graph=True).to_dict(), out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_is_not_static_is_refused_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    setups = {r: prepared(r) for r in ("stylise", "progressive-mnist", "gan-mnist")}
    reasons = {r: graph.obstacle(model, update, cuda) for r, (model, update, _) in setups.items()}
    assert "L-BFGS (optim.picture)" in str(reasons["stylise"])
    assert "a step of progressive_gan depends" in str(reasons["progressive-mnist"])
    assert reasons["gan-mnist"] is None
    monkeypatch.setattr("limner.core.dist.world", lambda: 2)
    assert "several" in str(graph.obstacle(*setups["gan-mnist"][:2], cuda))


def test_on_a_cpu_auto_runs_steps_eagerly() -> None:
    steps = Steps(*prepared("gan-mnist"))
    assert steps.recorder is None
    assert Steps(*prepared("gan-mnist"), graph=False).recorder is None


def test_values_of_the_command_line() -> None:
    read = [recipes.load("gan-mnist", {"graph": Text(v)}).train.kwargs["graph"] for v in ("on", "off", "auto")]
    assert read == [True, False, "auto"]


# ---- host reads ------------------------------------------------------------------------------------------------------

X = torch.arange(4.0)
READS: dict[str, Callable[[], object]] = {
    "item": lambda: X[0].item(),
    "bool": lambda: bool(X[0] > 0),
    "float": lambda: float(X[0]),
    "int": lambda: [0, 1][X[1].long()],
    "branch": lambda: 1 if (X > 0).any() else 0,
    "cpu": lambda: X.cpu(),
    "numpy": lambda: X.numpy(),
    "tolist": lambda: X.tolist(),
    "equal": lambda: torch.equal(X, X),
    "nonzero": lambda: X.nonzero(),
    "mask": lambda: X[X > 1],
    "masked_select": lambda: X.masked_select(X > 1),
    "unique": lambda: X.unique(),
    "tensor": lambda: torch.tensor([1.0, 2.0]),
    "list as index": lambda: X[[0, 1]],
    "svd": lambda: torch.linalg.svd(torch.eye(2)),
    "to another device": lambda: X.to("meta"),
}
KEEPS: dict[str, Callable[[], object]] = {
    "index": lambda: X[torch.arange(2)],
    "slice": lambda: X[1:3],
    "where": lambda: torch.where(X > 0, X, 0.0),
    "full": lambda: torch.full((), 2.0),
    "dtype": lambda: X.half().float(),
    "dropout": lambda: torch.nn.functional.dropout(X, 0.5),
    "same device": lambda: X.to(X.device),
}


@pytest.mark.parametrize("name", READS)
def test_what_a_graph_cannot_contain_is_listed_and_refused(name: str) -> None:
    with HostReads() as reads:
        READS[name]()
    assert reads.operations
    with pytest.raises(HostRead, match="cannot do this"), HostReads(refuse=True):
        READS[name]()


@pytest.mark.parametrize("name", KEEPS)
def test_what_a_graph_can_contain_passes(name: str) -> None:
    with HostReads(refuse=True):
        KEEPS[name]()


# ---- learning rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", [Adam(lr=0.1, decay=0.5, betas=(0.5, 0.9)), SGD(lr=0.1, decay=0.5, momentum=0.9)])
def test_a_rate_that_is_a_tensor_falls_like_a_number(optimiser: Adam | SGD) -> None:
    @contextmanager
    def trained(tensors: bool) -> Iterator[Tensor]:
        module = nn.Linear(3, 1, bias=False)
        nn.init.ones_(module.weight)
        update = Updates({"a": module}, {"a": optimiser})
        if tensors:
            update.rates_to_device()
        for i in range(8):
            update.begin(i, 8)
            update("a", module(torch.ones(2, 3)).square().mean())
        yield module.weight

    with trained(False) as a, trained(True) as b:
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # float32 instead of float64 rates
