"""Each check as a pure function of a history that is made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from limner.doctor.checks import CHECKS, adversarial, classes, conditional, samples, stability
from limner.doctor.checks._check import checks_of
from limner.doctor.finding import Finding
from limner.doctor.history import History

GAN = frozenset({"Draws", "HasCritic", "Conditional"})


def history(metrics: Sequence[dict[str, Any]], signals: Mapping[str, Sequence[float | None]]) -> History:
    """A training with an examination every 250 steps of 64 images; a signal is written samples__spread."""
    n = max(map(len, signals.values()), default=0)
    checks = [
        {
            "images": 16_000 * (i + 1),
            "step": 250 * (i + 1),
            "signals": {k.replace("__", "/"): v[i] for k, v in signals.items() if i < len(v)},
        }
        for i in range(n)
    ]
    lines = [{"images": 6400 * (i + 1), **line} for i, line in enumerate(metrics)]
    return History({"train": {"batch": 64}}, metrics=lines, checks=checks, abilities=GAN)


def found(name: str, metrics: Any = (), **signals: Sequence[float | None]) -> Finding:
    return CHECKS[name](history(metrics, signals))


def test_every_check_is_explained_and_points_to_checks_that_exist() -> None:
    for check in (
        each for module in (stability, conditional, samples, classes, adversarial) for each in checks_of(module)
    ):
        assert check.text.count("\n\n") == 1, check.name  # what it is; how it shows, and what helps
        assert set(check.looks_like) <= CHECKS.keys() - {check.name}
        assert check.needs <= GAN
        finding = check(History({}, abilities=GAN))
        assert finding.state == "unknown", check.name
        assert finding.sentence
        assert finding.check == check.name
        if check.needs:
            assert check(History({})).state == "n/a"
            assert check(History({})).sentence


SIMPLE = {
    "collapse": ("samples__spread", 0.9, 0.2),
    "low_variety": ("samples__within", 0.9, 0.6),
    "noise": ("samples__noise", 0.1, 0.9),
    "blur": ("samples__sharpness", 1.0, 0.3),
    "checkerboard": ("samples__checkerboard", 1.0, 4.0),
    "condition_ignored": ("condition__obeyed", 0.95, 0.1),
    "noise_ignored": ("condition__spread", 0.9, 0.01),
    "batch_norm": ("deep__batch_norm", 1.0, 0.3),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_a_number_that_is_bad_for_long_enough_fails_with_its_beginning(name: str) -> None:
    signal, good, bad = SIMPLE[name]
    if name == "batch_norm":
        assert found(name, **{signal: [bad]}).state == "fail"
        assert found(name, **{signal: [good]}).state == "pass"
        assert found(name, deep__ct=[0.0]).state == "n/a"  # it was looked for
        return
    fine = [good] * 10
    assert found(name, **{signal: fine}).state == "pass"
    assert found(name, **{signal: [*fine, bad]}).state == "watch"
    finding = found(name, **{signal: [*fine, bad, bad, bad]})
    assert (finding.state, finding.since, finding.value) == ("fail", 16_000 * 11, bad)
    assert finding.threshold is not None
    assert min(good, bad) <= finding.threshold <= max(good, bad)
    assert found(name, **{signal: [*fine, bad, bad, bad, good, good]}).state == "pass"


@pytest.mark.parametrize("name", [n for n in SIMPLE if n != "batch_norm"])
def test_a_young_model_is_left_in_peace(name: str) -> None:
    signal, good, bad = SIMPLE[name]
    assert found(name, **{signal: [bad] * 8}).state == "unknown"  # 2,000 steps
    assert found(name, **{signal: [bad] * 15 + [good]}).state == "pass"  # good after 4,000
    assert found(name, **{signal: [bad] * 19}).state == "fail"  # bad from 4,000 steps on


def test_one_image_after_2000_steps_is_a_collapse_at_once() -> None:
    assert found("collapse", samples__spread=[0.1] * 8).state == "unknown"
    assert found("collapse", samples__spread=[0.1] * 11).state == "fail"
    assert found("collapse", samples__spread=[0.2] * 11).state == "unknown"


def test_repeated_samples_are_a_collapse_although_they_are_far_apart() -> None:
    finding = found("collapse", samples__spread=[0.9] * 12, samples__within=[0.9] * 12, samples__duplicates=[0.9] * 20)
    assert finding.state == "fail"
    assert "repeat" in finding.sentence
    assert found("collapse", samples__spread=[0.9] * 20, samples__within=[0.9] * 17 + [0.01] * 3).state == "fail"


def test_noise_is_no_checkerboard() -> None:
    assert found("checkerboard", samples__checkerboard=[4.0] * 20, samples__noise=[0.9] * 20).state == "unknown"
    cause = found("checkerboard", samples__checkerboard=[4.0] * 20, nets__uneven=[2.0]).sentence
    assert "2 transposed convolutions" in cause


def test_copies_need_both_tests_or_many_that_are_near() -> None:
    def state(ct: float, authpct: float, near: float) -> str:
        return found("copying", deep__ct=[ct], deep__authpct=[authpct], deep__near=[near]).state

    assert state(-10, -30, 0.5) == state(-10, -13, 0.0) == state(0, -20, 0.1) == "fail"
    assert state(-10, -5, 0.0) == state(0, -20, 0.01) == state(0, 0, 0.01) == "pass"


def test_the_gradient_vanishes_only_while_d_wins() -> None:
    def state(order: float, signal: list[float], slope: float = 1.0) -> str:
        n = len(signal)
        return found("vanishing", critic__order=[order] * n, critic__signal=signal, critic__slope=[slope] * n).state

    healthy = [1.0] * 5
    assert state(0.999, [*healthy, 0.5, 0.5, 0.5]) == "pass"
    assert state(0.999, [*healthy, 1e-3, 1e-3, 1e-3]) == "fail"
    assert state(0.9, [*healthy, 1e-3, 1e-3, 1e-3]) == "pass"
    assert state(1.0, [1e-6] * 4) == "fail"  # from the beginning: the factor of the minimax loss
    assert state(1.0, [1e-6] * 4, slope=1e-6) == "pass"
    wins = {"critic__order": [1.0] * 8, "critic__signal": [1.0] * 8, "critic__slope": [1.0] * 8}
    saturated = [{"grad/G": 5.0}] * 8 + [{"grad/G": 0.01}] * 12  # a line every 6,400 images
    assert found("vanishing", saturated, **wins).state == "fail"
    assert found("vanishing", [{"grad/G": 5.0}] * 8 + [{"grad/G": 0.5}] * 12, **wins).state == "pass"


def test_a_weak_critic_is_no_equilibrium() -> None:
    weak = found("weak_critic", critic__order=[0.5] * 12, samples__told=[0.99] * 12)
    assert weak.state == "fail"
    rest = found("weak_critic", critic__order=[0.5] * 12, samples__told=[0.52] * 12)
    assert (rest.state, "equilibrium" in rest.sentence) == ("pass", True)
    strong = found("weak_critic", critic__order=[0.9] * 12, samples__told=[0.99] * 12)
    assert (strong.state, "equilibrium" in strong.sentence) == ("pass", False)


def test_a_critic_that_tells_nothing_does_not_overfit() -> None:
    assert found("critic_overfit", critic__gap=[0.8] * 12, critic__order=[0.9] * 12).state == "fail"
    assert found("critic_overfit", critic__gap=[0.8] * 12, critic__order=[0.55] * 12).state == "pass"
    assert found("critic_overfit", critic__gap=[0.2] * 12, critic__order=[0.9] * 12).state == "pass"


def test_singular_values_are_compared_over_1000_steps() -> None:
    doubling = [2.0**i for i in range(16)]
    finding = found("spectral_growth", weights__G=[1.0] * 16, weights__D=doubling)
    assert (finding.state, finding.value) == ("fail", 16.0)
    assert "of D " in finding.sentence
    assert found("spectral_growth", weights__D=[1.2**i for i in range(16)]).state == "pass"
    assert found("spectral_growth", weights__D=[5.0**i for i in range(5)] + [625.0] * 11).state == "pass"  # when young


def test_losses_and_gradients_that_explode_are_a_divergence() -> None:
    def lines(*losses: float | None, grad: float = 1.0) -> list[dict[str, Any]]:
        return [{"loss/G": loss, "grad/G": grad} for loss in losses]

    calm = [0.7, 0.8, 0.9, 0.7, 0.8, 0.9, 0.8, 0.7, 0.8, 0.9]
    assert found("divergence", lines(*calm)).state == "pass"
    assert found("divergence", lines(*calm, 50.0)).state == "watch"
    finding = found("divergence", lines(*calm, 50.0, 60.0, 70.0))
    assert (finding.state, finding.since) == ("fail", 6400 * 11)
    assert found("divergence", lines(*calm, 1.5, 1.6, 1.5)).state == "pass"  # a loss may move
    assert found("divergence", [*lines(*calm), *lines(0.8, 0.8, 0.8, grad=5000.0)]).state == "fail"
    assert found("divergence", [*lines(*calm), *lines(0.8, 0.8, 0.8, grad=50.0)]).state == "pass"  # not over 100
    assert found("divergence", lines(*calm, None)).state == "watch"  # a skipped update
    assert found("divergence", lines(*calm, None, None)).state == "fail"
    assert found("divergence", lines(*calm, None, None, 0.8)).state != "fail"
    assert found("divergence", lines(*calm), samples__finite=[1.0, 0.99]).state == "fail"
    assert CHECKS["divergence"].rolls_back


def counted(drawn: Sequence[Sequence[int]], shares: Sequence[float]) -> History:
    checks: list[dict[str, Any]] = [
        {"images": 16_000 * (i + 9), "step": 250 * (i + 9), "signals": {}, "counts": counts}
        for i, counts in enumerate(drawn)
    ]
    checks[0]["kinds"] = {"names": [f"class {k}" for k in range(len(shares))], "shares": shares}
    return History({}, checks=checks, abilities=GAN)


def test_few_samples_name_no_class() -> None:
    check = CHECKS["dropped_classes"]
    shares = [0.25] * 4
    finding = check(counted([[43, 43, 42, 0]] * 2, shares))
    assert finding.state == "unknown"
    assert "128 more samples" in finding.sentence
    assert check(counted([[43, 43, 42, 0]] * 3, shares)).state == "watch"
    finding = check(counted([[43, 43, 42, 0]] * 4, shares))
    assert (finding.state, finding.since) == ("fail", 16_000 * 11)
    assert "class 3;" in finding.sentence
    assert finding.value == pytest.approx(0.0714, abs=1e-3)  # 1 - 0.001^(1/384), over 0.25
    assert check(counted([[32, 32, 32, 32]] * 6, shares)).state == "pass"


def test_a_rare_class_needs_more_samples_and_a_class_that_real_images_hardly_have_is_not_judged() -> None:
    check = CHECKS["dropped_classes"]
    drawn = [[128, 0]] * 10
    assert check(counted(drawn, [0.98, 0.02])).state == "pass"  # class 0; 2,000 samples are needed for the other
    assert check(counted(drawn * 2, [0.98, 0.02])).state == "fail"
    assert check(counted(drawn * 2, [0.998, 0.002])).state == "pass"


def test_classes_are_not_counted_while_all_samples_are_alike() -> None:
    one = counted([[128, 0, 0, 0]] * 6, [0.25] * 4)
    assert CHECKS["dropped_classes"](one).state == "fail"
    alike = [{**row, "signals": {"samples/spread": 0.1}} for row in one.checks]
    finding = CHECKS["dropped_classes"](replace(one, checks=alike))
    assert finding.state == "unknown"
    assert "see collapse" in finding.sentence


def test_classes_that_come_and_go_are_not_dropped() -> None:
    turns = counted([[128 if k == i % 8 else 0 for k in range(8)] for i in range(10)], [0.125] * 8)
    assert CHECKS["oscillation"](turns).state == "fail"
    assert CHECKS["dropped_classes"](turns).state == "watch"
    calm = counted([[16] * 8] * 10, [0.125] * 8)
    assert CHECKS["oscillation"](calm).state == "pass"
    assert CHECKS["oscillation"](calm).value == 0
