"""The latent spaces of a model, found by what it can do, and what is measured of them.

=====  =====================================  ==========================================================================
space  needs                                  a point is
=====  =====================================  ==========================================================================
z      `Generates`                            noise of the prior, of a diffusion model the noise that its path starts
                                              from
code   `Reconstructs` and `Generates`         the code of a picture; measured are the codes of the model's own samples
y      `Generates` and `Conditional`          the label as a vector, with noise that stays
w      `HasStyles` and `HasPrior`             the style of an image, the same in all layers
w+     `HasStyles` and `HasPrior`             a style for each layer
=====  =====================================  ==========================================================================

What is not moved is the *rest* of a space: the labels of z and code, the noise of y. Noise that is normal is
interpolated on arcs and everything else on straight lines (White 2016, arXiv:1609.04468, section 2.1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from limner.core.capabilities import Conditional, Encodes, Generates, HasPrior, HasStyles, Reconstructs
from limner.core.codes import CodePrior
from limner.core.errors import LimnerError
from limner.core.interpolation import Interpolation, interpolation_for, lerp
from limner.core.model import GenerativeModel
from limner.evaluation.cost import is_slow
from limner.evaluation.draws import drawn_codes

_BATCH = 64


class Space:
    """A space of points from which a model makes images.

    Args:
        model: the model, in evaluation mode.

    Attributes:
        name: what users call it.
        about: what it is, in a few words.
        between: how its points are interpolated.
        limits: the lowest and the highest number of a point that the model knows; None if there is no limit.
    """

    name: ClassVar[str]
    about: ClassVar[str]

    def __init__(self, model: Any) -> None:
        self.model: Any = model
        self.between: Interpolation = lerp
        self.limits: tuple[float, float] | None = None

    @staticmethod
    def of(model: object) -> bool:
        """Whether a model has this space."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The name of the model."""
        return str(self.model.title)

    @cached_property
    def is_slow(self) -> bool:
        """Whether a picture takes many evaluations of nets, as those of diffusion models do: tools then take fewer."""
        return is_slow(self.model)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(C,H,W) of an image."""
        rest = self.rest(1, None, 0)
        return tuple(self.images(self.draw(1, 0, rest), rest).shape[1:])

    def rest(self, n: int, y: Any, seed: int) -> Tensor | None:
        """What is not moved, for n images: labels (n,…), of `y` or of all labels in turn; None where there is none."""
        return labels(self.model, n, y)

    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """Points (n,…) as the model draws them, for n images with this rest."""
        raise NotImplementedError

    def decode(self, points: Tensor, rest: Tensor | None) -> Tensor:
        """Images (B,C,H,W) of points (B,…) with the rest (B,…); differentiable."""
        return self.model.decode(self.inside(points), rest)

    def encode(self, x: Tensor, rest: Tensor | None) -> Tensor | None:
        """Points (B,…) of images (B,C,H,W); None where the model has no encoder."""
        return self.model.encode(x, rest) if isinstance(self.model, Encodes) else None

    def inside(self, points: Tensor) -> Tensor:
        """The points themselves, or the nearest that the model knows."""
        return points if self.limits is None else points.clamp(*self.limits)

    @torch.no_grad()
    def images(self, points: Tensor, rest: Tensor | None = None) -> Tensor:
        """Images (N,C,H,W) in [-1,1], on the CPU, of points (N,…): batch by batch; a rest of one image is for all."""
        if rest is not None:
            rest = rest.expand(len(points), *rest.shape[1:]) if len(rest) == 1 else rest
        return torch.cat([self.decode(*each).float().clamp(-1, 1).cpu() for each in _batches(points, rest)])

    @torch.no_grad()
    def points(self, x: Tensor, rest: Tensor | None) -> Tensor | None:
        """Points (N,…) of images (N,C,H,W), batch by batch; None where the model has no encoder."""
        parts = []
        for part, each in _batches(x, rest):
            found = self.encode(part.to(self.model.device), each)
            if found is None:
                return None
            parts.append(found)
        return torch.cat(parts)


class Noise(Space):
    """z: the noise of the prior."""

    name, about = "z", "noise of the prior"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.between = interpolation_for(model.prior)
        if getattr(model.prior, "kind", None) == "uniform":
            self.limits = (-1.0, 1.0)

    @staticmethod
    def of(model: object) -> bool:
        """Whether a model has this space."""
        return isinstance(model, Generates)

    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """Noise (n,…)."""
        return drawn_codes(self.model, n, torch.Generator(self.model.device).manual_seed(seed))


class Code(Noise):
    """The codes of pictures, of which those of the model's own samples are drawn."""

    name, about = "code", "codes of pictures"

    @staticmethod
    def of(model: object) -> bool:
        """Whether a model has this space."""
        return isinstance(model, Generates) and isinstance(model, Reconstructs)

    @torch.no_grad()
    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """The codes (n,…) of samples."""
        found = self.points(self.images(super().draw(n, seed, rest), rest), rest)
        assert found is not None
        return found


class Label(Space):
    """y: labels as vectors."""

    name, about = "y", "labels as vectors, with noise that stays"

    @staticmethod
    def of(model: object) -> bool:
        """Whether a model has this space."""
        return isinstance(model, Generates) and isinstance(model, Conditional)

    def rest(self, n: int, y: Any, seed: int) -> Tensor | None:
        """Noise (n,…) of the prior.

        Raises:
            LimnerError: a label is asked for, though labels are the points.
        """
        if y is not None:
            raise LimnerError("points of y are the labels themselves; leave y out, or choose another space")
        return drawn_codes(self.model, n, torch.Generator(self.model.device).manual_seed(seed))

    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """The vectors (n,size) of all classes in turn, or of labels of the data."""
        return self.vectors(None, n)

    def vectors(self, y: Any, n: int) -> Tensor:
        """The vectors (n,size) of what a user asks for; of all labels in turn without it."""
        asked = labels(self.model, n, y)
        assert asked is not None
        return self.model.condition.encode(asked).to(self.model.device)

    def decode(self, points: Tensor, rest: Tensor | None) -> Tensor:
        """Images (B,C,H,W) of vectors (B,size) with noise (B,…)."""
        return self.model.decode(rest, points)

    def encode(self, x: Tensor, rest: Tensor | None) -> Tensor | None:
        """No model tells a label from a picture."""
        return None


class Style(Space):
    """w: the style of an image."""

    name, about = "w", "the style of an image, the same in all layers"

    @staticmethod
    def of(model: object) -> bool:
        """Whether a model has this space."""
        return isinstance(model, HasStyles) and isinstance(model, HasPrior)

    @property
    def layers(self) -> int:
        """Number L of styles of an image."""
        return self.model.mean_style(labels(self.model, 1)).shape[1]

    @torch.no_grad()
    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """Styles (n,w) of noise.

        Raises:
            LimnerError: sampling options such as `psi_layers` make the styles of an image differ.
        """
        ws = self.drawn(n, seed, rest)
        if not ws.equal(ws[:, :1].expand_as(ws)):
            raise LimnerError("w is one style for all layers, and psi_layers makes them differ; write space=w+")
        return ws[:, 0]

    def drawn(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """Styles (n,L,w) of noise, before any mixing, truncated as the sampling options of the model say."""
        z = drawn_codes(self.model, n, torch.Generator(self.model.device).manual_seed(seed))
        return torch.cat([self.model.truncated_styles(*each) for each in _batches(z, rest)])

    def decode(self, points: Tensor, rest: Tensor | None) -> Tensor:
        """Images (B,C,H,W) of styles (B,w); labels are in the styles already."""
        return self.model.synthesise(points[:, None].expand(-1, self.layers, -1))

    def encode(self, x: Tensor, rest: Tensor | None) -> Tensor | None:
        """No model tells a style from a picture."""
        return None


class LayerStyles(Style):
    """w+: a style for each layer."""

    name, about = "w+", "a style for each layer"

    @torch.no_grad()
    def draw(self, n: int, seed: int, rest: Tensor | None) -> Tensor:
        """Styles (n,L,w) of noise."""
        return self.drawn(n, seed, rest)

    def decode(self, points: Tensor, rest: Tensor | None) -> Tensor:
        """Images (B,C,H,W) of styles (B,L,w)."""
        return self.model.synthesise(points)


def _batches(z: Tensor, rest: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Noise (b,…) and labels (b,…), a batch at a time."""
    for i, part in enumerate(z.split(_BATCH)):
        yield part, None if rest is None else rest[i * _BATCH : (i + 1) * _BATCH]


_KINDS: tuple[type[Space], ...] = (Style, LayerStyles, Noise, Code, Label)


def spaces(model: GenerativeModel) -> dict[str, Space]:
    """The latent spaces of a model by name, that which tools use by default first; none for a model without prior."""
    return {kind.name: kind(model) for kind in _KINDS if kind.of(model)}


def space_of(model: GenerativeModel, name: str | None = None) -> Space:
    """The latent space of a model with a name, or the one that tools use by default.

    Raises:
        LimnerError: the model has no such space, or none at all; the message says which it has.
    """
    known = spaces(model)
    if not known:
        raise LimnerError(f"{model.title} has no latent space: it makes images of images and has no prior to draw from")
    if name is not None and name not in known:
        listed = ", ".join(f"{k} ({space.about})" for k, space in known.items())
        raise LimnerError(f"{model.title} has no space {name!r}; it has: {listed}")
    return known[name] if name else next(iter(known.values()))


def labels(model: object, n: int, y: Any = None) -> Tensor | None:
    """Labels (n,…) on the model's device: what a user asks for, or all in turn; None for a model without condition.

    Raises:
        LimnerError: a label is asked for that the model does not have.
    """
    if not isinstance(model, Conditional):
        if y is not None:
            raise LimnerError(f"{getattr(model, 'title', 'this model')} is not conditional; leave y out")
        return None
    condition = model.condition
    found = condition.default(n) if y is None else condition.read(y, n)
    return found.to(next(model.parameters()).device)  # type: ignore[attr-defined]


def require_place(space: Space, y: Any) -> None:
    """Refuses pictures of a user that have no place in a space, or none without their label `y`.

    Raises:
        LimnerError: the points of the space are labels; or the model is conditional, so that a point gives another
            picture for each label, and no label is given.
    """
    if isinstance(space, Label):
        raise LimnerError("pictures have no place in y, where points are labels; choose another space")
    require_label(space, y)


def require_label(space: Space, y: Any) -> None:
    """Refuses points of a conditional model that come without their label `y`.

    Raises:
        LimnerError: a point gives another picture for each label, and no label is given.
    """
    if y is None and isinstance(space, Noise) and isinstance(space.model, Conditional):
        raise LimnerError(
            f"{space.title} is conditional, and a point gives another picture for each label; write y=LABEL"
        )


def fingerprint(model: GenerativeModel) -> str:
    """A hash of a model's constructor call and weights, by which files made of it are recognised."""
    call = model.spec.to_dict() if hasattr(model, "spec") else {"name": model.title}
    digest = hashlib.sha256(json.dumps(call, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Measured:
    """What draws of a space are like.

    Attributes:
        points: (n,…) the draws.
        mean: (D,) of each number of a point.
        sigma: (D,) standard deviation of each.
    """

    points: Tensor
    mean: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, points: Tensor) -> Measured:
        """The moments of points (n,…), n at least 2."""
        flat = points.flatten(1).double()
        return cls(points, flat.mean(0).to(points.dtype), flat.std(0).to(points.dtype))

    def components(self, k: int) -> tuple[Tensor, Tensor]:
        """Unit vectors (k,D) of the principal components of the draws, and their standard deviations (k,)."""
        flat = (self.points.flatten(1) - self.mean).double()
        k = min(k, *flat.shape)
        _, values, vectors = torch.linalg.svd(flat, full_matrices=False)
        vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()  # the largest entry > 0
        return vectors[:k].to(self.mean.dtype), (values[:k] / (len(flat) - 1) ** 0.5).to(self.mean.dtype)

    def sigma_along(self, directions: Tensor) -> Tensor:
        """Standard deviation (K,) of the draws along unit vectors (K,D)."""
        return ((self.points.flatten(1) - self.mean) @ directions.T).std(0)


def measured(space: Space, n: int = 500, seed: int = 0, y: Any = None) -> Measured:
    """What n draws of a space are like, of the labels `y`, or of all labels in turn."""
    rest = space.rest(n, y, seed)
    return Measured.of(space.draw(n, seed, rest))


def code_names(space: Space) -> CodePrior | None:
    """The prior of a space whose numbers are named codes (InfoGAN), else None."""
    prior = getattr(space.model, "prior", None)
    return prior if space.name == "z" and isinstance(prior, CodePrior) else None
