"""What is wrong with the data, before any training; `limner data check` looks at the files themselves."""

from __future__ import annotations

from typing import Literal

from limner.doctor.checks._check import check
from limner.doctor.finding import Finding
from limner.doctor.history import History

_MISSING = "it needs a first examination, after train.doctor_images"
_ONE_PICTURE = "this model learns from one picture"
_ENOUGH = {"HasCritic": 1000, "Translates": 200, "": 500}
"""Images that a model with an ability needs, the first that fits; below a quarter of it, it learns them by heart."""
_REPEATED = 0.01  # of the training images: watched
_MANY = 0.2  # of the training images: fails
_NEAR = 0.5  # of the training images; digits that are no copies have 0.13
_LEAKED = 0.01  # of the held-out images
_UNBALANCED = 10.0  # times the smallest class


@check("Learns", looks_like=("reconstruction_overfit", "likelihood_overfit"))
def tiny_set(history: History) -> Finding:
    """There are too few images to learn from.

    A model with a million weights can learn a hundred images by heart. A GAN's D does so first: it tells training
    images from all others, and its gradient says nothing about images any more. A GAN needs about a thousand images at
    least, and tens of thousands are better; other models need some hundreds, and pairs some hundreds too, because every
    pixel of a target teaches. Add images, augmentation (`data.flip=true`, the recipes `ada-64` and
    `diffaugment-mnist`), or begin with a trained model (`train.init`).
    """
    items = history.fact("data/items")
    if items is None:
        return Finding("tiny_set", "unknown", _MISSING)
    if _learns_one(history):
        return Finding("tiny_set", "n/a", _ONE_PICTURE)
    enough = next(n for ability, n in _ENOUGH.items() if not ability or ability in history.abilities)
    weights = history.fact("net/parameters")
    beside = f" for {weights:,.0f} weights" if weights else ""
    state: Literal["fail", "watch", "pass"] = "pass"
    if items < enough:
        state = "fail" if items < enough / 4 else "watch"
    words = f"{items:,.0f} training images{beside}"
    sentence = f"{words}, and such a model needs {enough:,} or more" if state != "pass" else words
    return Finding("tiny_set", state, sentence, items, float(enough))


@check("Learns")
def repeated_images(history: History) -> Finding:
    """Images are in the training data twice.

    A repeated image counts double: the model gives it double weight, and scores for copying find copies where there
    are none. Data that were collected from several places often have many. `limner data check` lists them by name.
    """
    return _share(
        history,
        "repeated_images",
        "data/repeated",
        (_REPEATED, _MANY),
        bad="{value:.1%} of the training images repeat another one exactly; limner data check lists them",
        good="{value:.1%} of the training images repeat another one",
    )


@check("Learns")
def near_duplicates(history: History) -> Finding:
    """Many training images look nearly the same.

    Frames of one film, crops of one picture or one picture in two files are one image for a model, so the set is
    smaller than it looks. `limner data check` lists pairs of a folder. Some sets, such as plain drawings of the same
    thing, are alike by nature, so this is only watched.
    """
    return _share(
        history,
        "near_duplicates",
        "data/near",
        (_NEAR, float("inf")),
        bad="{value:.0%} of the training images look nearly the same as another one",
        good="{value:.1%} of the training images look nearly the same as another one",
    )


@check("Learns", looks_like=("repeated_images",))
def leaked_images(history: History) -> Finding:
    """Held-out images are among the training images.

    Held-out images measure what a model makes of images that it has not seen. Where it has seen them, likelihood,
    reconstruction and distance of samples look better than they are, and copying cannot be told from learning. Make
    the split again, without repeated images.
    """
    return _share(
        history,
        "leaked_images",
        "data/leaked",
        (_LEAKED, _LEAKED),
        bad="{value:.1%} of the held-out images are training images too, so scores are too good",
        good="{value:.1%} of the held-out images are training images",
        missing="it needs held-out images, a set in memory, and a first examination",
    )


@check("Learns", looks_like=("dropped_classes",))
def unbalanced_classes(history: History) -> Finding:
    """Some classes have many times as many images as others.

    A model learns a class by how often it sees it. Images of a small class come out worse, and a GAN may leave it out
    altogether, which then looks like dropped modes. Add images to the small classes, or leave out those of the large
    ones (`data.only`, `data.limit`).
    """
    least, most = history.fact("data/least"), history.fact("data/most")
    if least is None or most is None:
        missing = _MISSING if history.fact("data/items") is None else "the images have no classes"
        return Finding("unbalanced_classes", "unknown" if missing is _MISSING else "n/a", missing)
    times = most / max(least, 1)
    words = f"the largest class has {most:,.0f} images and the smallest {least:,.0f}"
    state: Literal["watch", "pass"] = "watch" if times > _UNBALANCED else "pass"
    return Finding("unbalanced_classes", state, words, times, _UNBALANCED)


def _share(
    history: History,
    name: str,
    signal: str,
    limits: tuple[float, float],
    *,
    bad: str,
    good: str,
    missing: str = _MISSING,
) -> Finding:
    """The finding of a share that is watched above the first limit and fails above the second."""
    value = history.fact(signal)
    if value is None:
        if history.fact("data/items") is not None and missing is _MISSING:
            return Finding(name, "n/a", "the data are points, or one picture")
        return Finding(name, "unknown", missing)
    state: Literal["fail", "watch", "pass"] = "fail" if value > limits[1] else "watch" if value > limits[0] else "pass"
    return Finding(name, state, (good if state == "pass" else bad).format(value=value), value, limits[0])


def _learns_one(history: History) -> bool:
    """Whether one picture is optimised."""
    return "Paints" in history.abilities and not history.abilities & {"Translates", "Stylises"}
