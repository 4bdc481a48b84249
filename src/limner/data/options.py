"""The options that all sources of images share."""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, fields
from typing import Literal

from limner.core.errors import LimnerError
from limner.core.units import Count

Split = Literal["train", "test", "all"]
_LATER = ("condition", "captions", "mismatch")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How images are selected and prepared.

    Args:
        split: "train", "test" (images that training never uses) or "all". "test" has no flip or shift.
        size: side in pixels, or (height, width): images are resized to cover it and cropped at their centre.
            Raise it if you need detail; lower it if training is too slow.
        channels: 1 grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha; by default what the images have.
        only: names of the classes to keep, or values of attributes such as `[glasses=round, hair=red]`: of each
            attribute that is named, the images with one of its named values.
        without: names of the classes, or values of attributes, to leave out.
        limit: take this many images, evenly spaced in the set. Lower it if you want a quick try.
        flip: mirror each image left to right half of the time. Set it if a mirrored image is as good as the original.
        shift: move each image by up to this many pixels along both axes and repeat its edge. Raise it for few images.
        binarise: draw each pixel black or white, with its intensity as the probability of white: "static" once for each
            image, "dynamic" in every epoch.
        condition: what tells a conditional model which picture is meant: "labels", the classes or attributes, or
            "text", the captions. Of several captions of an image each epoch draws one.
        captions: captions of each image that are used. Lower it if reading them for the first time takes too long.
        mismatch: give each image of a batch a wrong label too, that of an image with another one. Models that learn
            from wrong labels set it themselves.
    """

    split: Split = "train"
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 2, 3, 4] | None = None
    only: list[str | int] | None = None
    without: list[str | int] | None = None
    limit: Count | None = None
    flip: bool = False
    shift: int = 0
    binarise: Literal["none", "static", "dynamic"] = "none"
    condition: Literal["labels", "text"] = "labels"
    captions: Count = 4
    mismatch: bool = False

    def __post_init__(self) -> None:
        _one_of("split", self.split, typing.get_args(Split))
        _one_of("binarise", self.binarise, ("none", "static", "dynamic"))
        _one_of("channels", self.channels, (None, 1, 2, 3, 4))
        _one_of("condition", self.condition, ("labels", "text"))
        if self.captions < 1:
            raise LimnerError(f"captions: {self.captions} leaves none; write 1 or more, or condition=labels")
        sides = (self.size,) if isinstance(self.size, int) or self.size is None else tuple(self.size)
        if self.size is not None and (len(sides) > 2 or not all(isinstance(s, int) and 1 <= s <= 8192 for s in sides)):
            raise LimnerError(f"size: {self.size!r} is not a size; write 64, or [height, width], each from 1 to 8192")
        for key, names in (("only", self.only), ("without", self.without)):
            if isinstance(names, str):
                raise LimnerError(f"{key}: {names!r} is one name; write a list of names, such as [{names}]")
        if self.limit is not None and self.limit < 1:
            raise LimnerError(f"limit: {self.limit} leaves no image; write 1 or more, or leave it out")
        if not 0 <= self.shift <= 8192:
            raise LimnerError(f"shift: {self.shift} is not possible; write 0 to 8192 pixels that an image may move")

    @property
    def height_width(self) -> tuple[int, int] | None:
        """`size` as (H,W), or None where it follows from the images."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def text(self) -> str:
        """All options as text for a fingerprint; later ones only where they were set, or old runs would not go on."""
        defaults = {f.name: f.default for f in fields(self) if f.name in _LATER}
        return repr(sorted((k, v) for k, v in asdict(self).items() if k not in defaults or v != defaults[k]))


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        choices = ", ".join(str(k) for k in known if k is not None)
        raise LimnerError(f"{name}: {value!r} is not possible; choose from: {choices}")
