"""What a comparison found, as parts of a page and for a terminal. It reads nothing but ``results.json`` and runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limner.bench._verdicts import p_text
from limner.core.run import Run
from limner.metrics.scorecard import PROPERTIES, base
from limner.report import Figure, Section, Table
from limner.report.words import number, title

_VERDICT_HEAD = ("score", "recipes", "difference (95 %)", "p", "verdict, p after Holm")
_SPENT_HEAD = ("recipe", "images seen", "seconds", "images/s", "parameters")
_UNSAID = "–"


def sections(folder: Path, content: Mapping[str, Any]) -> Iterator[Section]:
    """The page of a comparison whose runs lie under `folder`."""
    conditions, names = content["conditions"], [r["recipe"] for r in content["recipes"]]
    if content["verdicts"]:
        yield Section(
            "Which is better?",
            f"Welch's t-test over {conditions['seeds']} seeds of training for each pair of recipes, p values corrected"
            f" by Holm's method over all {len(content['verdicts'])} tests. Intervals of differences are Welch's 95 %,"
            " each for itself.\n\n“No significant difference” says that these seeds show none, not that there is none:"
            " more seeds see smaller differences.",
            (),
            Table(_VERDICT_HEAD, [_verdict_row(v) for v in content["verdicts"]]),
        )
    else:
        yield Section("No verdict yet", content["note"])
    for key, name in PROPERTIES.items():
        own = {s: score for s, score in content["scores"].items() if score["property"] == key}
        if own:
            rows = [_score_row(s, score, names) for s, score in own.items()]
            yield Section(name, _under(own, conditions), (), Table(("score", *names, *_anchors(conditions)), rows))
    figures = []
    for t in content["trainings"]:
        sheets = Run(folder / t["run"]).samples()
        if t["seed"] == 0 and sheets:
            caption = f"{t['recipe']}, seed 0, after {t['images']:,} images: from the first noise, not chosen."
            figures.append(Figure(sheets[-1][1], caption, f"Samples of {t['recipe']}"))
    yield Section("Samples", "", figures)
    spent = Table(_SPENT_HEAD, [_spent_row(r) for r in content["recipes"]])
    yield Section("Conditions", _conditions_text(conditions), (), spent)


def _anchors(conditions: Mapping[str, Any]) -> tuple[str, ...]:
    """What stands above the anchors of scores."""
    return tuple(conditions.get("anchors", ("real images", "noise")))


def _verdict_row(v: Mapping[str, Any]) -> tuple[str, ...]:
    reach = "" if v["low"] is None else f" ({_short(v['low'])} to {_short(v['high'])})"
    pair = f"{v['a']} − {v['b']}"
    p = p_text(v["p"]).lstrip("p= ")
    return title(base(v["score"])), pair, f"{_short(v['difference'])}{reach}", p, v["text"]


def _score_row(name: str, score: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    unit = f", {score['unit']}" if score.get("unit") else ""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(str(score.get("better")), "")
    means = [score["recipes"].get(r) for r in names]
    cells = [_UNSAID if m is None else around(m["mean"], m["low"]) for m in means]
    anchors = [_short(score[k]) if score.get(k) is not None else _UNSAID for k in ("ceiling", "floor")]
    return f"{title(base(name), score.get('unit', ''))}{unit}{arrow}", *cells, *anchors


def _spent_row(r: Mapping[str, Any]) -> tuple[str, ...]:
    images, seconds = r["images"]["mean"], r["seconds"]["mean"]
    return (
        r["recipe"],
        around(images, r["images"]["low"]),
        around(seconds, r["seconds"]["low"]),
        f"{images / max(seconds, 1e-9):,.0f}",
        f"{r['parameters']:,}",
    )


def around(mean: float, low: float | None) -> str:
    """A mean and how far its 95 % interval reaches, to two digits of that.

    >>> around(0.81234, 0.7877), around(12345.6, 12000.0), around(3.0, None)
    ('0.812 ± 0.025', '12,346 ± 346', '3')
    """
    reach = None if low is None else mean - low
    if not reach:
        return number(mean)
    digits = min(6, max(0, 1 - math.floor(math.log10(reach))))
    return f"{mean:,.{digits}f} ± {reach:,.{digits}f}".replace("-", "−")


def _short(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _under(own: Mapping[str, Mapping[str, Any]], conditions: Mapping[str, Any]) -> str:
    """What the numbers of a table hold under, and what each is."""
    text = f"Mean ± half of Student's 95 % interval over {conditions['seeds']} seeds of training."
    if conditions["seeds"] == 1:
        text = "One seed of training."
    if any("on" in score for score in own.values()):
        text += (
            f" {conditions['samples']:,} samples of each model against {conditions['heldout']:,} held-out images of"
            f" {conditions['data']}, seen by {conditions['extractor']}. Real images: training images scored as if a"
            " model had made them. Noise: mean and variance of each pixel, nothing else."
        )
    return text + "\n\n" + " ".join(f"{title(base(s))}: {score['how']}." for s, score in own.items())


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
        f"Each training: {conditions['budget']['text']}{data}; {seeds}, the recipes in turn for each; images in one"
        f" order for all recipes of a seed. Trained on: {machines}."
    )
    if conditions["budget"]["seconds"] is not None:
        text += (
            " The time holds steps, sheets of samples and checkpoints, over all starts; not the final scores. Equal"
            " time is equal work only on a machine that does nothing else."
        )
    if conditions["warning"]:
        text += "\n\n" + conditions["warning"]
    return text


def text(result: Mapping[str, Any]) -> str:
    """Scores and verdicts of `work` for a terminal."""
    names = [r["recipe"] for r in result["recipes"]]
    rows = [("", *names, *_anchors(result["conditions"]))]
    for key, name in PROPERTIES.items():
        own = {s: score for s, score in result["scores"].items() if score["property"] == key}
        if own:
            rows.append((name, *[""] * (len(names) + 2)))
            rows += [(f"  {first}", *rest) for first, *rest in (_score_row(s, v, names) for s, v in own.items())]
    rows.append(("Training", *[""] * (len(names) + 2)))
    spent = [_spent_row(r) for r in result["recipes"]]
    rows += [(f"  {what}", *[r[i] for r in spent], "", "") for i, what in ((1, "images seen"), (2, "seconds"))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    said = [f"{title(base(v['score']))}, {v['a']} and {v['b']}: {v['text']}" for v in result["verdicts"]]
    warning = result["conditions"]["warning"]
    return "\n".join([*table, "", *(said or [result["note"]]), *([warning] if warning else [])])
