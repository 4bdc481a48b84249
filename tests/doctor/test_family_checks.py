"""Checks of made histories: each fails where it must, passes where all is well, and says nothing of the young."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from limner.doctor.checks import CHECKS
from limner.doctor.history import History

BATCH, EVERY = 10, 250


def history(
    signals: Mapping[str, Any],
    *abilities: str,
    n: int = 8,
    recipe: Mapping[str, Any] | None = None,
    metrics: Mapping[str, list[float | None]] | None = None,
) -> History:
    """A training of n examinations; a signal is a number, or a list of one for each examination."""
    rows = []
    for i in range(n):
        at = {name: v[i] if isinstance(v, list) else v for name, v in signals.items()}
        rows.append({"images": (i + 1) * EVERY * BATCH, "step": (i + 1) * EVERY, "signals": at})
    length = max((len(v) for v in (metrics or {}).values()), default=0)
    lines = [{"images": (i + 1) * 50 * BATCH, **{k: v[i] for k, v in (metrics or {}).items()}} for i in range(length)]
    tree = {"model": {"name": "vae"}, "train": {"batch": BATCH, "images": 100_000}, "optim": {}}
    return History(tree | dict(recipe or {}), {}, lines, rows, (), frozenset(abilities), ())


def state(name: str, *args: Any, **kwargs: Any) -> str:
    return CHECKS[name](history(*args, **kwargs)).state


POSTERIOR = {"posterior/units": 20, "posterior/active": 18, "posterior/kl": 24.0}
CODE = {"code/error": 0.2, "code/held": 0.22, "code/noise": 0.9, "code/dead": 0.1, "code/sharpness": 0.8}
FLOW = {"flow/scale": 1.02, "flow/finite": 1.0, "flow/round_trip": 0.01, "flow/train": 2.0, "flow/held": 2.05}
DENOISE = {
    "denoise/mid": 0.3,
    "denoise/mean": 0.01,
    "denoise/std": 0.99,
    "denoise/assumed": 0.9,
    "denoise/reach": 150.0,
}
TRANSLATION = {"translation/change": 0.9, "translation/spread": 0.9, "translation/likeness": 0.8}
DATA = {
    "data/items": 5000,
    "data/repeated": 0.0,
    "data/near": 0.01,
    "data/leaked": 0.0,
    "data/least": 400,
    "data/most": 600,
    "net/batch_norm": 4.0,
    "net/batch_norm_D": 0.0,
    "net/parameters": 1e6,
}
HEALTHY: dict[str, tuple[Mapping[str, Any], str]] = {
    "HasPosterior": (POSTERIOR, "HasPosterior"),
    "Autoencodes": (CODE, "Autoencodes"),
    "Inverts": (FLOW, "Inverts"),
    "Denoises": (DENOISE, "Denoises"),
    "Translates": (TRANSLATION, "Translates"),
    "Paints": ({"style/saturated": 0.01}, "Paints"),
    "Learns": (DATA, "Learns"),
}

RISING = [2.0, 2.0, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5]
BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("posterior_collapse", "HasPosterior", {"posterior/active": 1}),
    ("kl_vanishing", "HasPosterior", {"posterior/kl": 0.3}),
    ("not_reconstructing", "Autoencodes", {"code/error": 0.99}),
    ("dead_units", "Autoencodes", {"code/dead": 0.8}),
    ("copying_input", "Autoencodes", {"code/error": 0.01, "code/noise": 0.05}),
    ("reconstruction_overfit", "Autoencodes", {"code/error": 0.05, "code/held": 0.4}),
    ("blurred_reconstructions", "Autoencodes", {"code/sharpness": 0.001}),
    ("exploding_scales", "Inverts", {"flow/scale": 1e6}),
    ("exploding_scales", "Inverts", {"flow/scale": 0.01}),
    ("exploding_scales", "Inverts", {"flow/finite": 0.9}),
    ("not_invertible", "Inverts", {"flow/round_trip": 12.0}),
    ("likelihood_overfit", "Inverts", {"flow/train": 1.0, "flow/held": RISING}),
    ("not_denoising", "Denoises", {"denoise/mid": 1.4}),
    ("wrong_range", "Denoises", {"denoise/std": 3.0}),
    ("wrong_range", "Denoises", {"denoise/std": 0.2}),
    ("wrong_range", "Denoises", {"denoise/mean": -2.0}),
    ("wrong_range", "Denoises", {"denoise/reach": 0.3}),
    ("wrong_range", "Denoises", {"denoise/assumed": 0.01}),
    ("untranslated", "Translates", {"translation/change": 0.001}),
    ("one_translation", "Translates", {"translation/spread": 0.01}),
    ("inverted_colours", "Translates", {"translation/likeness": -0.9}),
    ("saturated", "Paints", {"style/saturated": 0.5}),
    ("tiny_set", "Learns", {"data/items": 60}),
    ("repeated_images", "Learns", {"data/repeated": 0.5}),
    ("leaked_images", "Learns", {"data/leaked": 0.1}),
]


@pytest.mark.parametrize(("name", "ability", "fault"), BAD, ids=[f"{n}-{next(iter(f))}" for n, _, f in BAD])
def test_a_fault_fails_and_health_passes(name: str, ability: str, fault: dict[str, Any]) -> None:
    signals, needs = HEALTHY[ability]
    found = CHECKS[name](history(dict(signals) | fault, needs))
    assert found.state == "fail"
    assert found.value is not None
    assert found.threshold is not None
    good = CHECKS[name](history(signals, needs))
    assert good.state == "pass"
    assert good.sentence
    assert good.sentence != found.sentence
    assert CHECKS[name](history(signals)).state == "n/a"
    assert CHECKS[name](history({}, needs)).state == "unknown"


@pytest.mark.parametrize(
    ("name", "ability", "fault"), [bad for bad in BAD if bad[1] not in ("Learns", "Paints")][:18], ids=str
)
def test_a_young_training_does_not_fail(name: str, ability: str, fault: dict[str, Any]) -> None:
    """What fails at once is what no training mends: infinite numbers, a way back that is lost, data out of range."""
    signals, needs = HEALTHY[ability]
    at_once = {"flow/finite", "flow/round_trip", "denoise/reach", "denoise/assumed"}
    if not at_once & set(fault):
        short = {k: v[:1] if isinstance(v, list) else v for k, v in fault.items()}
        assert state(name, dict(signals) | short, needs, n=1) in ("unknown", "pass", "watch")


def test_the_onset_is_where_it_began() -> None:
    active = [18, 18, 18, 18, 0, 0, 0, 0]
    found = CHECKS["posterior_collapse"](history(POSTERIOR | {"posterior/active": active}, "HasPosterior"))
    assert (found.state, found.since) == ("fail", 5 * EVERY * BATCH)
    assert "0 of 20" in found.sentence


def test_what_is_only_watched() -> None:
    assert state("blurred_reconstructions", CODE | {"code/sharpness": 0.2}, "Autoencodes") == "watch"
    assert state("near_duplicates", DATA | {"data/near": 0.9}, "Learns") == "watch"
    assert state("unbalanced_classes", DATA | {"data/least": 3}, "Learns") == "watch"
    assert state("repeated_images", DATA | {"data/repeated": 0.05}, "Learns") == "watch"
    assert state("tiny_set", DATA | {"data/items": 400}, "Learns") == "watch"


def test_a_model_that_does_not_reconstruct_yet_copies_nothing() -> None:
    assert state("copying_input", CODE | {"code/error": 0.5, "code/noise": 0.1}, "Autoencodes") == "pass"


def test_an_exact_reconstruction_is_no_overfitting() -> None:
    """The error of new images may be many times that of training images, if both are small."""
    assert state("reconstruction_overfit", CODE | {"code/error": 0.001, "code/held": 0.02}, "Autoencodes") == "pass"


def test_a_gap_that_does_not_grow_is_no_overfitting() -> None:
    assert state("likelihood_overfit", FLOW | {"flow/train": 1.0, "flow/held": 2.0}, "Inverts") == "pass"
    assert state("likelihood_overfit", FLOW | {"flow/train": RISING, "flow/held": RISING}, "Inverts") == "pass"


def test_what_is_enough_depends_on_the_model() -> None:
    for items, abilities, expected in (
        (400, ("HasCritic",), "watch"),
        (240, ("HasCritic",), "fail"),
        (400, ("Translates",), "pass"),
        (240, ("Translates",), "pass"),
        (100, ("Translates",), "watch"),
        (600, (), "pass"),
    ):
        assert state("tiny_set", DATA | {"data/items": items}, "Learns", *abilities) == expected
    assert state("tiny_set", {"data/items": 1}, "Learns", "Paints") == "n/a"


def test_a_critic_that_is_never_wrong() -> None:
    """Six lines of metrics in a row, after the first 300 steps."""
    long = {"loss/D": [0.6] * 10 + [0.01] * 6}
    assert state("discriminator_wins", TRANSLATION, "Translates", metrics=long) == "fail"
    assert state("discriminator_wins", TRANSLATION, "Translates", metrics={"loss/D": [0.01] * 6}) == "unknown"
    assert state("discriminator_wins", TRANSLATION, "Translates", metrics={"loss/D": [0.4] * 20}) == "pass"
    assert state("discriminator_wins", TRANSLATION, "Translates", metrics={"loss/T": [0.4] * 20}) == "n/a"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([9.0, 5.0, 4.0, 3.0, 3.0], "pass"),
        ([9.0, 9.0, 8.99, 9.01, 8.98], "fail"),
        ([9.0, 20.0, 30.0, 30.0, 30.0], "fail"),
        ([9.0, 9.0], "unknown"),
    ],
)
def test_a_loss_that_does_not_fall(losses: list[float], expected: str) -> None:
    assert state("no_descent", {}, "Paints", metrics={"loss/picture": losses}) == expected


def train(**settings: Any) -> dict[str, Any]:
    return {"train": {"batch": BATCH, "images": "100k"} | settings}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ema_images": "50k"}, "watch"),
        ({"ema_images": "500k", "ema_ramp": 0.05}, "pass"),
        ({"ema_images": "10k"}, "pass"),
        ({}, "n/a"),
    ],
)
def test_an_average_that_is_too_long(settings: dict[str, Any], expected: str) -> None:
    assert state("long_average", {}, "Learns", recipe=train(**settings)) == expected


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({"lr": 1e-3}, "pass"),
        ({"lr": 5e-3}, "pass"),
        ({"lr": 0.1}, "watch"),
        ({"lr": "1e-8"}, "watch"),
        ({"name": "sgd", "lr": 0.1}, "n/a"),
    ],
)
def test_a_rate_far_from_those_that_work(optim: dict[str, Any], expected: str) -> None:
    found = CHECKS["learning_rate"](history({}, "Learns", recipe={"optim": {"VAE": optim}}))
    assert found.state == expected
    if expected == "watch":
        assert f"optim.VAE.lr is {float(optim['lr']):g}, and recipes for vae use 0.001" in found.sentence


def test_settings_that_cause_trouble() -> None:
    saturating = {"model": {"name": "gan", "adversarial": "saturating"}}
    assert state("saturating_objective", {}, "HasCritic", recipe=saturating) == "watch"
    assert state("saturating_objective", {}, "HasCritic", recipe={"model": {"name": "gan"}}) == "pass"
    assert state("batch_of_one", DATA, "Learns", recipe=train(batch=1)) == "fail"
    assert state("batch_of_one", DATA | {"net/batch_norm": 0.0}, "Learns", recipe=train(batch=1)) == "pass"
    assert state("batch_of_one", {}, "Learns", recipe=train(batch=1)) == "unknown"
    assert state("batch_of_one", DATA, "Learns", recipe=train(batch=2)) == "pass"
    r1 = {"model": {"name": "gan", "penalties": {"r1": 1.0}}}
    assert state("penalty_norm", DATA | {"net/batch_norm_D": 2.0}, "HasCritic", recipe=r1) == "watch"
    assert state("penalty_norm", DATA, "HasCritic", recipe=r1) == "pass"


def test_every_check_explains_itself() -> None:
    for name, check in CHECKS.items():
        assert len(check.text) > 200, f"{name} must say what it means"
        assert check.why_not or not check.needs - {"Learns"}, name


def test_a_check_that_fails_ends_no_training() -> None:
    """What a recipe of another version holds may be of any type."""
    found = CHECKS["long_average"](history({}, recipe=train(ema_images="many")))
    assert found.state == "error"
    assert "many" in found.sentence
