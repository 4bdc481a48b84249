"""Scores of a translator: how near translations come to their targets, compared with baselines without learning.

With pairs, every held-out translation is compared with its target: L1, PSNR, SSIM, a perceptual distance
(`limner.metrics.paired`), and all translations with all targets by a Fréchet distance. A number alone says little, so
baselines are measured in the same way, on the same images. Their names are part of the names of their scores:

==============  ====================================================================================================
``l1_classic``  a method without learning: bicubic, grey, Telea's inpainting, a median filter, an unsharp mask
``l1_nearest``  the training target whose source is nearest to the given source in L2
``l1_constant``  the mean colour of the training targets: the constant that is best in squared error
``l1_median``   their median colour, channel by channel: the constant that is best in L1
``l1_source``   the source itself
==============  ====================================================================================================

The best baseline is the floor of a score and an exact translation its ceiling, so a model with a norm above 0 is
better than all of them. If a task has a classic method, that is the only baseline. Translations are finished as by
`limner apply` (`inpaint` keeps the pixels outside holes, `colourise` keeps the luminance), and rounded to 8 bits.

Diversity is how much translations of one source differ with the noise. pix2pix's is near zero: dropout is its only
noise, and its net learnt to ignore any other (Isola et al. 2017, section 3.1).

Without pairs, the scores are those of the losses in training (cycle consistency; identity on images of the target
domain), the Fréchet distance from the other domain, whose floor is that of untranslated images, and, if the held-out
set knows pairs that training did not, the distance from the true target.

Errors and intervals are over images, of one training; those of Fréchet distances come from a jackknife of ten groups.
"""

from __future__ import annotations

from limner.evaluation.translation.domains import domain_scores
from limner.evaluation.translation.evaluator import Repeated, TranslationEvaluator, missing_scores, training_scorer
from limner.evaluation.translation.figure import before_after
from limner.evaluation.translation.frechet import extractor_for, small_set_frechet
from limner.evaluation.translation.measures import MEASURES, Effort
from limner.evaluation.translation.pairs import pair_scores
from limner.evaluation.translation.without_learning import PairBaselines, baselines, task_of, translator

__all__ = [
    "MEASURES",
    "Effort",
    "PairBaselines",
    "Repeated",
    "TranslationEvaluator",
    "baselines",
    "before_after",
    "domain_scores",
    "extractor_for",
    "missing_scores",
    "pair_scores",
    "small_set_frechet",
    "task_of",
    "training_scorer",
    "translator",
]
