"""What a recipe alone says: settings that are known to cause trouble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from limner.config.catalogue import RECIPES, names
from limner.core.units import count
from limner.core.yaml_text import read_yaml
from limner.doctor.checks._check import check
from limner.doctor.finding import Finding
from limner.doctor.history import History

_LAG = 0.2  # of the images of a training
_FAR = 10.0  # times the rates of the recipes for a model


@check()
def long_average(history: History) -> Finding:
    """The moving average of the weights is longer than the training can fill.

    Samples come from averaged weights. A half-life of h images means that what was learnt h images ago still counts
    half, so the average lags behind by about as much. If h is a large part of the training, samples show a model that
    is long past, or in the extreme the untrained one, while the losses look fine. `ema_ramp` bounds the half-life by
    a share of the images seen so far, and makes the same recipe right for any length.
    """
    train = history.recipe.get("train", {})
    images, half = count(str(train.get("images", 0))), float(count(str(train.get("ema_images", 0))))
    ramp = float(train.get("ema_ramp", 0) or 0)
    if not half:
        return Finding("long_average", "n/a", "this training averages no weights")
    if ramp:
        half = min(half, ramp * images)
    share = half / max(images, 1)
    words = f"the half-life of the average is {share:.0%} of the training"
    state = "watch" if share > _LAG else "pass"
    sentence = f"{words}, so samples lag behind; set train.ema_ramp=0.05" if state == "watch" else words
    return Finding("long_average", state, sentence, share, _LAG)  # type: ignore[arg-type]


@check(looks_like=("divergence",))
def learning_rate(history: History) -> Finding:
    """The learning rate is far from those with which such a model is known to train.

    The right rate depends on the model and the optimiser more than on the data, so the recipes that limner comes with
    are a guide: a rate ten times above all of them for the same model and optimiser mostly diverges, or kills units in
    its first steps; one ten times below learns too slowly to see. It is only watched, since a curve that falls is the
    better judge.
    """
    model, rates = str(history.model.get("name")), dict(_rates_of(history.recipe))
    known = _known_rates().get(model, {})
    off = []
    for group, (optimiser, rate) in rates.items():
        usual = known.get(optimiser)
        if usual and not min(usual) / _FAR < rate < max(usual) * _FAR:
            off.append((group, rate, usual))
    if off:
        group, rate, usual = off[0]
        span = f"{min(usual):g}" if min(usual) == max(usual) else f"{min(usual):g} to {max(usual):g}"
        sentence = f"optim.{group}.lr is {rate:g}, and recipes for {model} use {span}"
        return Finding("learning_rate", "watch", sentence, rate, max(usual) if rate > max(usual) else min(usual))
    if not any(known.get(optimiser) for optimiser, _ in rates.values()):
        return Finding("learning_rate", "n/a", f"no shipped recipe trains {model} with this optimiser")
    return Finding("learning_rate", "pass", f"learning rates are about those of the recipes for {model}")


@check("HasCritic", why_not="this model has no critic", looks_like=("vanishing",))
def saturating_objective(history: History) -> Finding:
    """G descends log(1 - D(G(z))), which has no slope where D is sure.

    This is the minimax loss of the first paper. As soon as D tells samples with confidence, log(1 - D) is flat, and the
    gradient that G learns from vanishes with D's certainty. The paper itself advises to ascend log D(G(z)) instead,
    the non-saturating loss, which has the same fixed point and a slope where it is needed. Keep the minimax loss to
    show that. `limner lab vanishing_gradient` draws both.
    """
    if history.model.get("adversarial") == "saturating":
        sentence = "adversarial=saturating gives G no gradient once D is sure; take nonsaturating"
        return Finding("saturating_objective", "watch", sentence)
    return Finding("saturating_objective", "pass", "the loss of G has a slope where D is sure")


@check()
def batch_of_one(history: History) -> Finding:
    """Batch norm with one image in a batch.

    Batch norm subtracts the mean of the batch and divides by its deviation. Of one image these are its own, so its
    brightness and contrast are taken away, and in use, with the means of the training, it behaves as another net. Take
    larger batches, or instance, group or layer norm.
    """
    layers = history.fact("net/batch_norm")
    if history.batch > 1:
        return Finding("batch_of_one", "pass", f"batches have {history.batch} images", float(history.batch), 2.0)
    if layers is None:
        return Finding("batch_of_one", "unknown", "it needs a first examination, after train.doctor_images")
    if layers:
        sentence = f"{layers:.0f} layers have batch norm, and a batch has one image; raise train.batch"
        return Finding("batch_of_one", "fail", sentence, 1.0, 2.0)
    return Finding("batch_of_one", "pass", "no layer has batch norm", 1.0, 2.0)


@check("HasCritic", why_not="this model has no critic", looks_like=("vanishing",))
def penalty_norm(history: History) -> Finding:
    """D has batch norm, and a penalty on its slope.

    A penalty asks for the slope of D at one image. With batch norm the answer for an image depends on all images of
    the batch, so the slope at one of them is not defined, and the penalty holds something else down. Penalties at each
    image refuse such a D; R1 and R2 accept it, since they sum over the batch, and lose their meaning in part. Use
    `D.norm=layer`, or none (Gulrajani et al. 2017, section 4).
    """
    penalties, layers = history.model.get("penalties") or {}, history.fact("net/batch_norm_D")
    if not penalties:
        return Finding("penalty_norm", "pass", "D has no penalty that its norm could disturb")
    if layers is None:
        return Finding("penalty_norm", "unknown", "it needs a first examination, after train.doctor_images")
    if layers:
        named = " and ".join(str(name) for name in penalties)
        return Finding(
            "penalty_norm", "watch", f"D has {layers:.0f} layers of batch norm beside {named}; use D.norm=layer"
        )
    return Finding("penalty_norm", "pass", "D has a penalty and no batch norm")


def _rates_of(recipe: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, float]]]:
    """(group, (optimiser, rate)) of a recipe, where a rate is written."""
    for group, section in recipe.get("optim", {}).items():
        if isinstance(section, Mapping) and "lr" in section:
            yield group, (str(section.get("name", "adam")), float(section["lr"]))


@cache
def _known_rates() -> dict[str, dict[str, list[float]]]:
    """The rates in shipped recipes, by model and optimiser."""
    rates: dict[str, dict[str, list[float]]] = {}
    for name in names("recipe"):
        tree = read_yaml(RECIPES / f"{name}.yaml")
        model = tree["model"] if isinstance(tree["model"], str) else tree["model"]["name"]
        for _, (optimiser, rate) in _rates_of(tree):
            rates.setdefault(model, {}).setdefault(optimiser, []).append(rate)
    return rates
