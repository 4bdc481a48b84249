"""The results of a comparison as a page and for a terminal, from ``results.json`` and the run folders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limner.bench._verdicts import p_text
from limner.core.run import Run
from limner.metrics.scorecard import PROPERTIES, base
from limner.report import Figure, Section, Table
from limner.report.words import aligned, number, title

_VERDICT_HEAD = ("score", "recipes", "difference (95 %)", "p", "verdict, p after Holm")
_BUDGET_HEAD = ("recipe", "images seen", "seconds", "images/s", "parameters")
_MISSING = "–"


def sections(folder: Path, content: Mapping[str, Any]) -> Iterator[Section]:
    """The page of a comparison whose runs lie under `folder`."""
    conditions, names = content["conditions"], [r["recipe"] for r in content["recipes"]]
    if content["verdicts"]:
        yield Section(
            "Which is better?",
            f"Welch's t-test over {conditions['seeds']} seeds of training for each pair of recipes, p values corrected"
            f" by Holm's method over all {len(content['verdicts'])} tests. Intervals of differences are Welch's 95 %,"
            " without correction.\n\n“No significant difference” means that these seeds show none, not that there is"
            " none: more seeds can show smaller differences.",
            (),
            Table(_VERDICT_HEAD, [_verdict_row(v) for v in content["verdicts"]]),
        )
    else:
        yield Section("No verdict yet", content["note"])
    for key, name in PROPERTIES.items():
        scores = {s: score for s, score in content["scores"].items() if score["property"] == key}
        if scores:
            rows = [_score_row(s, score, names) for s, score in scores.items()]
            yield Section(
                name, _explanation(scores, conditions), (), Table(("score", *names, *_anchors(conditions)), rows)
            )
    figures = []
    for t in content["trainings"]:
        grids = Run(folder / t["run"]).samples()
        if t["seed"] == 0 and grids:
            caption = f"{t['recipe']}, seed 0, after {t['images']:,} images: from the first noise, not selected."
            figures.append(Figure(grids[-1][1], caption, f"Samples of {t['recipe']}"))
    yield Section("Samples", "", figures)
    budget_table = Table(_BUDGET_HEAD, [_budget_row(r) for r in content["recipes"]])
    yield Section("Conditions", _conditions_text(conditions), (), budget_table)


def _anchors(conditions: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(conditions.get("anchors", ("real images", "noise")))


def _verdict_row(v: Mapping[str, Any]) -> tuple[str, ...]:
    margin = "" if v["low"] is None else f" ({_short(v['low'])} to {_short(v['high'])})"
    pair = f"{v['a']} − {v['b']}"
    p = p_text(v["p"]).lstrip("p= ")
    return title(base(v["score"])), pair, f"{_short(v['difference'])}{margin}", p, v["text"]


def _score_row(name: str, score: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    unit = f", {score['unit']}" if score.get("unit") else ""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(str(score.get("better")), "")
    means = [score["recipes"].get(r) for r in names]
    cells = [_MISSING if m is None else with_interval(m["mean"], m["low"]) for m in means]
    anchors = [_short(score[k]) if score.get(k) is not None else _MISSING for k in ("ceiling", "floor")]
    return f"{title(base(name), score.get('unit', ''))}{unit}{arrow}", *cells, *anchors


def _budget_row(r: Mapping[str, Any]) -> tuple[str, ...]:
    images, seconds = r["images"]["mean"], r["seconds"]["mean"]
    return (
        r["recipe"],
        with_interval(images, r["images"]["low"]),
        with_interval(seconds, r["seconds"]["low"]),
        f"{images / max(seconds, 1e-9):,.0f}",
        f"{r['parameters']:,}",
    )


def with_interval(mean: float, low: float | None) -> str:
    """A mean ± half of its 95 % interval, with two digits of the latter.

    >>> with_interval(0.81234, 0.7877), with_interval(12345.6, 12000.0), with_interval(3.0, None)
    ('0.812 ± 0.025', '12,346 ± 346', '3')
    """
    margin = None if low is None else mean - low
    if not margin:
        return number(mean)
    digits = min(6, max(0, 1 - math.floor(math.log10(margin))))
    return f"{mean:,.{digits}f} ± {margin:,.{digits}f}".replace("-", "−")


def _short(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _explanation(scores: Mapping[str, Mapping[str, Any]], conditions: Mapping[str, Any]) -> str:
    """The conditions of the numbers in a table, and the meaning of each."""
    text = f"Mean ± half of Student's 95 % interval over {conditions['seeds']} seeds of training."
    if conditions["seeds"] == 1:
        text = "One seed of training."
    if any("on" in score for score in scores.values()):
        text += (
            f" {conditions['samples']:,} samples of each model against {conditions['heldout']:,} held-out images of"
            f" {conditions['data']}, with the features of {conditions['extractor']}. Real images: training images"
            " scored as if a model had generated them. Noise: noise with the mean and variance of each pixel."
        )
    return text + "\n\n" + " ".join(f"{title(base(s))}: {score['how']}." for s, score in scores.items())


def _threads(n: int | None) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _conditions_text(conditions: Mapping[str, Any]) -> str:
    machines = "; ".join(
        f"{e['device_name']} ({e['device']}), {_threads(e['threads'])}, torch {e['torch']}, limner {e['limner']}"
        for e in conditions["environments"]
    )
    seeds = "seed 0" if conditions["seeds"] == 1 else f"seeds 0 to {conditions['seeds'] - 1}"
    data = ""
    if "data" in conditions:
        c, h, w = conditions["size"]
        data = f" on {conditions['trained_on']:,} images {c}×{h}×{w} of {conditions['data']}"
    text = (
        f"Each training: {conditions['budget']['text']}{data}; {seeds}, the recipes in turn for each; images in the"
        f" same order for all recipes of a seed. Trained on: {machines}."
    )
    if conditions["budget"]["seconds"] is not None:
        text += (
            " The time includes steps, grids of samples and checkpoints of all starts, but not the final scores. Equal"
            " time is equal work only on a machine without other work."
        )
    if conditions["warning"]:
        text += "\n\n" + conditions["warning"]
    return text


def text(result: Mapping[str, Any]) -> str:
    """Scores and verdicts of a result of `limner.bench.compare.run`, for a terminal."""
    names = [r["recipe"] for r in result["recipes"]]
    rows = [("", *names, *_anchors(result["conditions"]))]
    for key, name in PROPERTIES.items():
        scores = {s: score for s, score in result["scores"].items() if score["property"] == key}
        if scores:
            rows.append((name, *[""] * (len(names) + 2)))
            rows += [(f"  {first}", *rest) for first, *rest in (_score_row(s, v, names) for s, v in scores.items())]
    rows.append(("Training", *[""] * (len(names) + 2)))
    budget_rows = [_budget_row(r) for r in result["recipes"]]
    rows += [(f"  {label}", *[r[i] for r in budget_rows], "", "") for i, label in ((1, "images seen"), (2, "seconds"))]
    sentences = [f"{title(base(v['score']))}, {v['a']} and {v['b']}: {v['text']}" for v in result["verdicts"]]
    warning = result["conditions"]["warning"]
    return "\n".join([*aligned(rows), "", *(sentences or [result["note"]]), *([warning] if warning else [])])
