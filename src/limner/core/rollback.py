"""When a training has diverged, and the checkpoint that it goes back to (`train.guard`).

An update with a loss or a gradient that is not finite never reaches the weights (`limner.core.update`). It may be one
bad batch, so training goes on. Three in a row are no accident any more, and the statistics that a net gathers in its
forward pass, as batch norm does, keep a value that is not finite for ever. Then the training goes back to a checkpoint
of before. It would come to the same place again, so the order of the images, the augmentation and the noise are those
of another seed, and the learning rates are halved. Both are functions of the number of roll-backs, which checkpoints
hold. So a training that was rolled back is resumed like any other, bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import torch

from limner.core.checkpoint import Checkpoint, DamagedCheckpoint, OtherFormat, folders, pack, read
from limner.core.dist import any_rank
from limner.core.model import GenerativeModel
from limner.core.update import Updates, all_finite

MOST = 3
"""The largest number of roll-backs of a training."""

RATE = 0.5
"""The factor of all learning rates for each roll-back."""

SKIPPED = "the loss or its gradient is not finite"
BROKEN = "weights or statistics are not finite"

_PATIENCE = 3  # so many skipped updates in a row are trouble


def trouble(model: GenerativeModel, update: Updates, device: torch.device) -> str | None:
    """Says what is wrong with a training, or None; all ranks get the same answer. It waits for the device.

    Args:
        model: the model in training.
        update: its updates so far.
        device: the device of this rank.
    """
    if any_rank(not all_finite(model.state_dict().values()), device):
        return BROKEN
    return SKIPPED if any_rank(float(update.streak) >= _PATIENCE, device) else None


def is_finite(model: GenerativeModel, averaged: GenerativeModel, update: Updates, device: torch.device) -> bool:
    """Whether everything that a checkpoint holds is finite, on all ranks: weights, averages, statistics, moments."""
    moments = pack(update.state())[0]
    tensors = [*model.state_dict().values(), *averaged.state_dict().values(), *moments.values()]
    return not any_rank(not all_finite(tensors), device)


def last_healthy(root: Path, since: int | None = None) -> Checkpoint | None:
    """The newest intact checkpoint that was written while all went well, or None.

    All checkpoints hold finite values. One that was written just after a skipped update is left out, because what went
    wrong had begun. One that an interruption wrote is taken only if there is no other, so that an interrupted training
    goes back to the same place as another.

    Args:
        root: the folder of checkpoints.
        since: the position at which it began to go wrong; later checkpoints are left out.
    """
    interim: Checkpoint | None = None
    for folder in reversed(folders(root)):
        if since is not None and int(folder.name) > since:
            continue
        try:
            found = read(folder)
        except (DamagedCheckpoint, OtherFormat):
            continue
        if any(float(streak) for streak in found.trainer["update"]["streaks"].values()):
            continue
        if found.state.get("planned", True):
            return found
        interim = interim or found
    return interim


def message(reason: str, position: int, images: int, count: int) -> str:
    """The sentence for the user about roll-back number `count` from a position to the checkpoint after `images`."""
    place = f"to checkpoint {images:08d}" if images else "to the start"
    return (
        f"{reason} at image {position}: back {place}, with another order of the data and {RATE**count:g} of the"
        f" learning rates (roll-back {count} of {MOST})"
    )
