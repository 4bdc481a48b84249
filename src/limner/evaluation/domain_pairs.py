"""Pair agreement: do the two images that a model of two domains makes of one noise show the same (CoGAN)?

Liu and Tuzel 2016 (arXiv:1606.07536, section 4) count how often a classifier reads the same digit in both. Here each
domain has a judge of its own, a small net that learns from the labelled training images of that domain. Two controls
stand beside the number: its floor, the agreement after one side was shuffled, and its ceiling, the agreement that two
perfectly corresponding images would have with judges that err as these do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from limner.core.batch import Dataset, Unpaired, drawn, to_float, to_uint8
from limner.core.capabilities import DrawsPairs
from limner.core.model import GenerativeModel
from limner.data.sources.digit_domains import edges, negatives
from limner.evaluation.draws import batches
from limner.metrics.agreement import agreement as pixel_agreement
from limner.metrics.conditions import agreement
from limner.metrics.extractors.readers import SmallReader, reading
from limner.metrics.scorecard import Card, Score, missing, normalised

_PAIRS = 1000
_TAUGHT = 5000  # images that a judge learns from


def pair_scores(
    model: GenerativeModel, train: Dataset, heldout: Dataset, device: torch.device | str = "cpu", pairs: int = _PAIRS
) -> Card:
    """The agreement of pairs; "n/a", with the reason, where the classes of the domains are not known.

    Args:
        model: makes pairs.
        train: two domains, whose images the judges learn from.
        heldout: images of both that the judges are tested on.
        device: where images are drawn.
        pairs: number of pairs.
    """
    if not isinstance(model, DrawsPairs):
        return {}
    domains, tests = _first_and_second(train), _first_and_second(heldout)
    values = None if not domains or domains[0].condition is None else domains[0].condition.values
    is_known = all(p.labels is not None for p in (*domains, *tests))
    if not is_known or not values or any(p.condition != domains[0].condition for p in (*domains, *tests)):
        why = f"the domains of {train.name} have no labels in common, so nobody can tell whether a pair shows the same"
        return {"pair_agreement": missing("quality", why)}
    condition = domains[0].condition
    assert condition is not None
    judges, right = [], []
    for domain, test in zip(domains, tests, strict=True):
        x, y = _labelled(domain)
        judge = SmallReader.trained(x, condition.features(y), values, device=device)
        x, y = _labelled(test)
        right.append(agreement(reading(judge.logits(x), judge.values, values), condition.features(y)).value)
        judges.append(judge)
    sides = _drawn_pairs(model, pairs)
    a, b = (reading(judge.logits(x), judge.values, values) for judge, x in zip(judges, sides, strict=True))
    found, ceiling = agreement(a, b), right[0] * right[1]
    return {
        f"pair_agreement@small-v1[n={pairs}]": Score(
            found.value, unit="of pairs", on=f"{pairs} pairs, each of one noise", property="quality", low=found.low,
            high=found.high, better="higher", floor=found.chance, ceiling=ceiling,
            how=f"pairs whose two images read the same (Liu and Tuzel 2016), by a small net for each domain, right in"
            f" {right[0]:.1%} and {right[1]:.1%} of held-out images; {found.chance:.3g} with one side shuffled",
            norm=normalised(found.value, found.chance, ceiling) if ceiling > found.chance else None,
        )
    }  # fmt: skip


def pixel_pair_scores(model: GenerativeModel, heldout: Dataset) -> Card:
    """Whether images of one noise correspond, for models of two domains and data whose second is a known change."""
    change = {"digits-edges": edges, "digits-negatives": negatives}.get(heldout.name)
    if change is None or not isinstance(model, DrawsPairs):
        return {}
    a, b = _drawn_pairs(model, _PAIRS)
    result = pixel_agreement(to_float(change(a)), to_float(b))
    assert result.shuffled is not None
    on = f"{_PAIRS} pairs; the floor is that of shuffled pairs"
    rows = {
        "pair_pixels": (result.pixels, result.shuffled.pixels, "share of pixels that agree"),
        "pair_iou": (result.iou, result.shuffled.iou, "bright pixels of both over bright pixels of either"),
        "pair_correlation": (result.correlation, result.shuffled.correlation, "correlation over the pixels of a pair"),
    }
    how = ", of the image of domain a, changed as the data are, and that of domain b (Liu and Tuzel 2016)"
    return {
        name: Score(
            value, on=on, how=text + how, property="quality", better="higher", ceiling=1.0, floor=floor,
            norm=normalised(value, floor, 1.0),
        )
        for name, (value, floor, text) in rows.items()
    }  # fmt: skip


def _first_and_second(dataset: Any) -> tuple[Dataset, ...]:
    """The two domains in the order in which a model makes pairs of them; nothing if there are none."""
    return (dataset.a, dataset.b) if dataset.batch_type is Unpaired else ()


def _labelled(part: Dataset) -> tuple[Tensor, Tensor]:
    """Images (N,C,H,W) uint8 and labels of a domain, at most 5,000, drawn at random."""
    assert part.labels is not None
    n = min(len(part), _TAUGHT)
    x = torch.cat([to_uint8(x) for x, _, _ in batches(part, n, 500, "cpu")])
    return x, part.labels[torch.tensor(drawn(len(part), n))]


@torch.inference_mode()
def _drawn_pairs(model: DrawsPairs, n: int) -> tuple[Tensor, Tensor]:
    """Images of both domains (n,C,H,W) uint8 of the same noise, in evaluation mode."""
    assert isinstance(model, GenerativeModel)
    generator = torch.Generator(model.device).manual_seed(0)
    mode = model.training
    model.eval()
    parts = [model.decode_pair(z) for z in model.prior.sample(n, generator).split(250)]
    model.train(mode)
    a, b = (to_uint8(torch.cat(side).clamp(-1, 1)).cpu() for side in zip(*parts, strict=True))
    return a, b
