"""Optimiser steps on one group, and the guard against values that are not finite."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from limner.core.errors import LimnerError
from limner.core.optimisers import LBFGS, SGD, Adam
from limner.core.update import Updates, all_finite


def pair() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(3, 3), nn.Linear(3, 1)


def test_adam_is_torch_adam_and_touches_one_group() -> None:
    G, D = pair()
    twin = nn.Linear(3, 1)
    twin.load_state_dict(D.state_dict())
    update = Updates({"G": G, "D": D}, {"G": Adam(lr=0.1), "D": Adam(lr=0.1, betas=(0.5, 0.9))})
    plain = torch.optim.Adam(twin.parameters(), lr=0.1, betas=(0.5, 0.9))
    before = [p.clone() for p in G.parameters()]
    x = torch.randn(8, 3)
    for _ in range(5):
        update("D", D(G(x)).square().mean())
        plain.zero_grad()
        twin(G(x).detach()).square().mean().backward()
        plain.step()
    for p, q in zip(D.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(p, q) for p, q in zip(G.parameters(), before, strict=True))
    assert all(p.grad is None for p in G.parameters()), "no gradient is computed to be thrown away"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(0.1, (0.5, 0.9), 1e-2, 0.3), lambda p: torch.optim.AdamW(p, 0.1, (0.5, 0.9), 1e-2, 0.3)),
        (SGD(0.1, momentum=0.8), lambda p: torch.optim.SGD(p, 0.1, 0.8)),
        (SGD(0.1, weight_decay=0.3), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.3)),
    ],
)
def test_every_option_reaches_the_optimiser(ours: Adam | SGD, theirs: Callable[..., torch.optim.Optimizer]) -> None:
    _, D = pair()
    twin = copy.deepcopy(D)
    update, plain = Updates({"D": D}, {"D": ours}), theirs(twin.parameters())
    x = torch.randn(8, 3)
    for _ in range(5):
        update("D", D(x).square().mean())
        plain.zero_grad()
        twin(x).square().mean().backward()
        plain.step()
    for p, q in zip(D.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_the_logged_norm_is_the_norm_and_clip_limits_the_step() -> None:
    _, D = pair()
    update = Updates({"D": D}, {"D": SGD(lr=1.0, clip=0.01)})
    before = torch.cat([p.detach().flatten().clone() for p in D.parameters()])
    x = torch.randn(8, 3)
    grads = torch.autograd.grad(D(x).square().mean() * 100, list(D.parameters()))
    update("D", D(x).square().mean() * 100)
    norm = torch.cat([g.flatten() for g in grads]).norm()
    torch.testing.assert_close(update.logs["grad/D"], norm)
    after = torch.cat([p.detach().flatten() for p in D.parameters()])
    assert abs(float((after - before).norm()) - 0.01) < 1e-5


@pytest.mark.parametrize("optimiser", [Adam(lr=0.1), SGD(lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_loss_changes_nothing(optimiser: Adam | SGD, bad: float) -> None:
    _, D = pair()
    update = Updates({"D": D}, {"D": optimiser})
    x = torch.randn(8, 3)
    update("D", D(x).square().mean())
    weights = [p.detach().clone() for p in D.parameters()]
    moments = {k: v.clone() for k, v in update.state()["moments"]["D"]["0"].items() if v is not None}
    for _ in range(3):
        update("D", D(x).square().mean() * bad)
    assert all(torch.equal(p, q) for p, q in zip(D.parameters(), weights, strict=True))
    assert all(torch.equal(v, update.state()["moments"]["D"]["0"][k]) for k, v in moments.items())
    assert (float(update.skipped), float(update.streak)) == (3, 3)
    update("D", D(x).square().mean())
    assert (float(update.skipped), float(update.streak)) == (3, 0)
    assert not torch.equal(next(D.parameters()), weights[0])


def test_a_bad_gradient_of_a_finite_loss_is_caught_too() -> None:
    w = nn.Linear(1, 1, bias=False)
    w.weight.data.zero_()
    update = Updates({"w": w}, {"w": Adam(lr=0.1)})
    update("w", w(torch.ones(1, 1)).abs().sqrt().sum())  # sqrt has an infinite slope at 0
    assert w.weight.item() == 0
    assert float(update.skipped) == 1


def test_groups_and_optimisers_must_match() -> None:
    G, D = pair()
    with pytest.raises(LimnerError, match="group 'D' has no optimiser"):
        Updates({"G": G, "D": D}, {"G": Adam()})
    with pytest.raises(LimnerError, match="no group 'E'"):
        Updates({"G": G}, {"G": Adam(), "E": Adam()})


def test_scale_slows_a_sub_module_down() -> None:
    net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    update = Updates({"AE": net}, {"AE": SGD(lr=1.0, scale={"decoder": 0.5})})
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    update("AE", sum(p.sum() for p in net.parameters()))
    for n, p in net.named_parameters():
        torch.testing.assert_close(before[n] - p, torch.full_like(p, 0.5 if n.startswith("decoder") else 1.0))
    with pytest.raises(LimnerError, match="no sub-module 'head'"):
        Updates({"AE": net}, {"AE": SGD(scale={"head": 0.5})})


@pytest.mark.parametrize("optimiser", [Adam, SGD])
@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 1.0])
def test_the_rate_falls_linearly_to_nothing_over_the_last_share(optimiser: type[Adam | SGD], decay: float) -> None:
    _, D = pair()
    net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    falling = optimiser(lr=0.2, decay=decay, scale={"decoder": 0.5})
    update = Updates({"AE": net, "D": D}, {"AE": falling, "D": optimiser(lr=0.3)})

    def rates(group: str) -> list[float]:
        return [g["lr"] for g in update.optimisers[group].param_groups]

    for share in (0.0, 0.1, 0.5, 0.6, 0.75, 0.9, 0.999, 1.0, 0.3):  # the last: a rate is of its share, not of the past
        update.begin(round(1000 * share), 1000)
        left = min(1.0, (1 - share) / decay) if decay else 1.0
        assert rates("AE") == pytest.approx([0.2 * left, 0.1 * left], abs=1e-12), share
        assert rates("D") == [0.3], "a group without decay keeps its rate"


def test_a_step_is_as_long_as_the_rate_of_its_share() -> None:
    net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    update = Updates({"AE": net}, {"AE": SGD(lr=1.0, decay=0.5, scale={"decoder": 0.5})})
    for share, left in ((0.0, 1.0), (0.8, 0.4), (1.0, 0.0)):
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        update.begin(round(1000 * share), 1000)
        update("AE", sum(p.sum() for p in net.parameters()))
        for n, p in net.named_parameters():
            moved = left * (0.5 if n.startswith("decoder") else 1.0)
            torch.testing.assert_close(before[n] - p.detach(), torch.full_like(p, moved))


def test_moments_survive_saving() -> None:
    _, D = pair()
    update = Updates({"D": D}, {"D": Adam(lr=0.1)})
    x = torch.randn(8, 3)
    update("D", D(x).square().mean())
    saved = {k: v.clone() for k, v in D.state_dict().items()}
    state = update.state()
    state = {"moments": {"D": {i: {k: t.clone() for k, t in s.items()} for i, s in state["moments"]["D"].items()}}} | {
        "skipped": state["skipped"].clone(),
        "streaks": {"D": state["streaks"]["D"].clone()},
    }
    update("D", D(x).square().mean())
    expected = [p.detach().clone() for p in D.parameters()]
    D.load_state_dict(saved)
    fresh = Updates({"D": D}, {"D": Adam(lr=0.1)})
    fresh.load_state(state)
    fresh("D", D(x).square().mean())
    assert all(torch.equal(p, q) for p, q in zip(D.parameters(), expected, strict=True))


def test_the_guards_counters_survive_saving() -> None:
    G, D = pair()
    optimisers = {"G": SGD(), "D": SGD()}
    update = Updates({"G": G, "D": D}, optimisers)
    update("D", D(torch.ones(1, 3)).sum() * float("nan"))
    update("D", D(torch.ones(1, 3)).sum() * float("nan"))
    update("G", G(torch.ones(1, 3)).sum())
    again = Updates({"G": G, "D": D}, optimisers)
    again.load_state(copy.deepcopy(update.state()))
    assert (float(again.skipped), float(again.streak)) == (2, 2)
    assert {g: float(s) for g, s in again.streaks.items()} == {"G": 0, "D": 2}


def test_one_group_may_fail_while_the_other_learns() -> None:
    G, D = pair()
    update = Updates({"G": G, "D": D}, {"G": SGD(), "D": SGD()})
    for _ in range(4):
        update("D", D(torch.ones(1, 3)).sum() * float("nan"))
        update("G", G(torch.ones(1, 3)).sum())
    assert (update.skipped.item(), update.streak.item()) == (4, 4)


class Rosenbrock(nn.Module):
    """The Rosenbrock function of ten variables."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.linspace(-1, 1, 10, dtype=torch.float64))
        self.evaluations = 0

    def loss(self) -> Tensor:
        self.evaluations += 1
        a, b = self.x[:-1], self.x[1:]
        return (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum()


@pytest.mark.parametrize(("lr", "iterations", "history"), [(1.0, 1, 20), (0.3, 1, 3), (1.0, 4, 20)])
def test_lbfgs_equals_that_of_torch_with_fewer_evaluations(lr: float, iterations: int, history: int):
    """Half of all evaluations, if each step is one iteration."""
    ours, theirs = Rosenbrock(), Rosenbrock()
    update = Updates({"x": ours}, {"x": LBFGS(lr, iterations, history)})
    arguments = (lr, iterations, 25 * iterations, 0.0, 0.0, history, "strong_wolfe")
    plain = torch.optim.LBFGS(theirs.parameters(), *arguments)

    def closure() -> Tensor:
        plain.zero_grad()
        value = theirs.loss()
        value.backward()
        return value

    for _ in range(30):
        update("x", ours.loss)
        plain.step(closure)
    assert torch.equal(ours.x, theirs.x)
    assert float(ours.loss().detach()) < 10
    assert ours.evaluations < (0.7 if iterations == 1 else 1) * theirs.evaluations


def test_lbfgs_continues_from_a_saved_state():
    """Ten steps are five, saved, loaded, and five more, to the bit."""
    whole, half = Rosenbrock(), Rosenbrock()
    updates = [Updates({"x": problem}, {"x": LBFGS()}) for problem in (whole, half)]
    for _ in range(5):
        for update, problem in zip(updates, (whole, half), strict=True):
            update("x", problem.loss)
    again = Updates({"x": half}, {"x": LBFGS()})
    again.load_state(copy.deepcopy(updates[1].state()))
    for _ in range(5):
        updates[0]("x", whole.loss)
        again("x", half.loss)
    assert torch.equal(whole.x, half.x)


def test_a_line_search_that_is_not_finite_is_undone():
    """The first evaluation is finite, the later ones of the step are not."""
    problem = Rosenbrock()
    update = Updates({"x": problem}, {"x": LBFGS()})
    update("x", problem.loss)
    before, first = problem.x.detach().clone(), problem.evaluations + 1
    update("x", lambda: problem.loss() * (1.0 if problem.evaluations < first else float("nan")))
    assert torch.equal(problem.x, before)
    assert (float(update.skipped), float(update.streak)) == (1, 1)
    update("x", problem.loss)
    assert not torch.equal(problem.x, before)
    assert (float(update.skipped), float(update.streak)) == (1, 0)


def test_a_line_search_that_is_not_finite_leaves_no_memory() -> None:
    """Else its gradient would stay, in the next search and in the next checkpoint."""
    problem = Rosenbrock()
    update = Updates({"x": problem}, {"x": LBFGS()})
    update("x", lambda: problem.loss() * float("nan"))  # where the next search begins
    before = problem.x.detach().clone()
    update("x", problem.loss)
    assert not torch.equal(problem.x, before)
    before = problem.x.detach().clone()
    for _ in range(2):
        update("x", lambda: problem.loss() * float("nan"))
        assert update.state()["moments"]["x"] == {}
    assert torch.equal(problem.x, before)
    update("x", problem.loss)
    assert not torch.equal(problem.x, before)
    assert float(update.streak) == 0


def test_slower_rates_are_those_of_the_recipe_with_and_without_a_schedule() -> None:
    G, D = pair()
    update = Updates({"G": G, "D": D}, {"G": Adam(lr=0.1, decay=0.5), "D": SGD(lr=0.2)})

    def rates(images: int) -> list[float]:
        update.begin(images, 100)
        return [float(o.param_groups[0]["lr"]) for o in update.optimisers.values()]

    assert rates(75) == pytest.approx([0.05, 0.2])
    for factor in (0.5, 0.25, 1.0):  # they do not multiply
        update.slow_down(factor)
        assert rates(0) == pytest.approx([0.1 * factor, 0.2 * factor])
        assert rates(75) == pytest.approx([0.05 * factor, 0.2 * factor])
    update.rates_to_device()
    rate = update.optimisers["G"].param_groups[0]["lr"]
    update.slow_down(0.5)
    assert rates(75) == pytest.approx([0.025, 0.1])
    assert update.optimisers["G"].param_groups[0]["lr"] is rate, "a recorded step reads this tensor"
    assert update.rates == {"G": [0.1], "D": [0.2]}


def test_a_state_without_moments_forgets_those_that_there_are() -> None:
    _, D = pair()
    update = Updates({"D": D}, {"D": Adam()})
    first = copy.deepcopy(update.state())
    update("D", D(torch.ones(2, 3)).sum())
    assert update.state()["moments"]["D"]
    update.load_state(first)
    assert update.state()["moments"]["D"] == {}


def test_finite_means_every_value() -> None:
    huge = torch.full((4,), 3e38)  # whose sum is not finite
    assert all_finite([torch.ones(3), huge, torch.tensor([1 << 60]), torch.empty(0)])
    assert all_finite([])
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite([torch.ones(3), torch.tensor([1.0, bad])])
        assert not all_finite([torch.ones(3, dtype=torch.float64), torch.tensor(bad)])
    assert not all_finite([torch.tensor([float("inf"), -float("inf")])])


def test_in_bfloat16_the_net_changes_with_an_update() -> None:
    """Autocast caches weights in bfloat16; the old ones must not be used after an update."""
    module = nn.Linear(4, 1, bias=False)
    update = Updates({"a": module}, {"a": SGD(lr=1.0)})
    x = torch.ones(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        update("a", module(x).sum().float())
        inside = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inside, module(x))
