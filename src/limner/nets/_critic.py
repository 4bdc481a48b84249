"""What discriminators share: packing, features of a whole batch, spectral norm, and the gradient at their input.

The gradient of a chain of layers with respect to its input is the product of their Jacobians, last layer first. Each
factor is itself a forward operation with the same weights: a matrix product for a linear layer, a transposed
convolution for a convolution, a product with the slope for an activation. Written out like that, the gradient is an
ordinary function of the weights, and a penalty on it needs one ordinary backward pass. Where slopes are constants
(ReLU, LeakyReLU, maxout) that pass does not even visit the layers' outputs. Nets with other parts (normalisation,
features of the batch) are differentiated twice by autograd, with the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import type_before_parametrizations

from limner.nets._layers import Maxout, SameConv2d

aten = torch.ops.aten
Minibatch = Literal["none", "std", "discrimination"]


# ---- the gradient at the input --------------------------------------------------------------------------------------

Pull = Callable[[Tensor], Tensor]  # the gradient at a layer's output -> the gradient at its input
Rule = Callable[[Any, Tensor], tuple[Tensor, Pull]]  # a layer and its input -> its output and its pull


def _linear(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Pull]:
    w = layer.weight  # asked for once: spectral norm computes it anew, and takes a power step, at every look
    return F.linear(x, w, layer.bias), lambda g: g @ w


def _conv(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, Pull]:
    w, stride, dilation, groups = layer.weight, layer.stride, layer.dilation, layer.groups
    pad = [int(p) for p in layer.padding]
    sizes = zip(x.shape[2:], pad, dilation, layer.kernel_size, stride)
    unread = [(n + 2 * p - d * (k - 1) - 1) % s for n, p, d, k, s in sizes]  # last rows and columns no window reaches
    h = F.conv2d(x, w, layer.bias, stride, pad, dilation, groups)
    return h, lambda g: F.conv_transpose2d(g, w, None, stride, pad, unread, groups, dilation)


def _same_conv(layer: SameConv2d, x: Tensor) -> tuple[Tensor, Pull]:
    pads = layer.pads(x)
    h, pull = _conv(layer, F.pad(x, pads))
    return h, lambda g: F.pad(pull(g), [-p for p in pads])


def _maxout(layer: Maxout, x: Tensor) -> tuple[Tensor, Pull]:
    pieces = x.unflatten(1, (-1, layer.pieces))
    h, best = pieces.max(2, keepdim=True)
    return h.squeeze(2), lambda g: torch.zeros_like(pieces).scatter(2, best, g[:, :, None]).flatten(1)


def _dropout(layer: nn.Dropout, x: Tensor) -> tuple[Tensor, Pull]:
    kept = F.dropout(torch.ones_like(x), layer.p, layer.training)
    return x * kept, lambda g: g * kept


def _flatten(layer: nn.Flatten, x: Tensor) -> tuple[Tensor, Pull]:
    return layer(x), lambda g: g.view(x.shape)


def _pointwise(pull: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> Rule:
    """An activation h = f(x), by what it makes of the gradient g at its output: g·f'(x)."""

    def rule(layer: nn.Module, x: Tensor) -> tuple[Tensor, Pull]:
        h = layer(x)
        return h, lambda g: pull(layer, x, h, g)

    return rule


def _silu(layer: nn.SiLU, x: Tensor, h: Tensor, g: Tensor) -> Tensor:
    s = x.sigmoid()  # PyTorch's own kernel cannot be differentiated
    return g * s * (1 + x * (1 - s))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    SameConv2d: _same_conv,
    Maxout: _maxout,
    nn.Dropout: _dropout,
    nn.Flatten: _flatten,
    # The kernels of PyTorch's own backward pass. Slopes that are constants must not lead back to h: hence detach.
    nn.ReLU: _pointwise(lambda layer, x, h, g: aten.threshold_backward(g, h.detach(), 0)),
    nn.LeakyReLU: _pointwise(
        lambda layer, x, h, g: aten.leaky_relu_backward(g, x.detach(), layer.negative_slope, False)
    ),
    nn.Tanh: _pointwise(lambda layer, x, h, g: aten.tanh_backward(g, h)),
    nn.Sigmoid: _pointwise(lambda layer, x, h, g: aten.sigmoid_backward(g, h)),
    nn.ELU: _pointwise(lambda layer, x, h, g: aten.elu_backward(g, layer.alpha, 1, 1, False, x)),
    nn.SiLU: _pointwise(_silu),
}


def _unrolled(layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from _unrolled(layer)
        else:
            yield layer


def rules(layers: Iterable[nn.Module]) -> list[tuple[Rule, nn.Module]] | None:
    """Each layer with its rule, Sequentials unrolled; None when any layer has none."""
    found = [(RULES.get(type_before_parametrizations(layer)), layer) for layer in _unrolled(layers)]
    return None if any(rule is None for rule, _ in found) else [(rule, layer) for rule, layer in found if rule]


def gradient_by_rules(chain: Iterable[tuple[Rule, nn.Module]], x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a chain of layers and the gradient of its sum at x, both by forward operations alone."""
    h, pulls = x, []
    for rule, layer in chain:
        h, pull = rule(layer, h)
        pulls.append(pull)
    g = torch.ones_like(h)
    for pull in reversed(pulls):
        g = pull(g)
    return h, g.to(x.dtype)


def gradient_by_autograd(net: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of any net and the gradient of its sum at x; to be differentiated a second time."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        out = net(x)
        (g,) = torch.autograd.grad(out.sum(), x, create_graph=again)
    return out if again else out.detach(), g


# ---- features of the batch ------------------------------------------------------------------------------------------


def _append(x: Tensor, features: Tensor) -> Tensor:
    """Returns x (n,F) or (n,C,H,W) with features (n,K) appended to dimension 1, as constant maps where x has maps."""
    if x.dim() == 4:
        features = features[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, features], 1)


class MinibatchStd(nn.Module):
    """Appends how much the images of a group differ: one number for the whole group.

    Karras et al. 2018, *Progressive growing of GANs*, arXiv:1710.10196, section 3: the standard deviation over the
    images of each feature at each place, averaged over features and places. Their text takes all images of the batch
    and their code groups of 4. Here a group is 4 neighbours of the batch, or 3 or 2 where 4 does not divide the batch;
    all of it where none of them does. Neighbours, so that two batches judged as one give what they give apart, if 4
    divides both.
    """

    features = 1

    def forward(self, x: Tensor) -> Tensor:
        """(n,F+1) or (n,C+1,H,W) of (n,F) or (n,C,H,W)."""
        n = len(x)
        group = next((k for k in (4, 3, 2) if n % k == 0), n)
        variance = x.unflatten(0, (-1, group)).var(1, correction=0)  # (n/group,…)
        std = (variance + 1e-8).sqrt().flatten(1).mean(1)  # the 1e-8 of their code: features that agree have a slope
        return _append(x, std[:, None].expand(-1, group).reshape(n, 1))


class MinibatchDiscrimination(nn.Module):
    """Appends how close each image is to the others, in a number of learned spaces.

    Salimans et al. 2016, *Improved techniques for training GANs*, arXiv:1606.03498, section 3.2. The sum of the paper
    is divided by the batch size: otherwise, while all images look alike, every feature is n and they drown the others.
    The number of spaces and their dimension are those of the authors' code for images of 32 pixels.

    Args:
        inputs: numbers that describe one image.
        spaces: B, the number of features.
        dimension: C, the dimension of each space.
    """

    def __init__(self, inputs: int, spaces: int = 100, dimension: int = 5) -> None:
        super().__init__()
        self.features, self.dimension = spaces, dimension
        self.T = nn.Linear(inputs, spaces * dimension, bias=False)

    @staticmethod
    def closeness(M: Tensor) -> Tensor:
        """Returns o (n,B) of M (n,B,C): o(x_i)_b = Σ_j exp(−‖M_{i,b} − M_{j,b}‖₁)."""
        return (M[:, None] - M).abs().sum(3).neg().exp().sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """(n,F+B) or (n,C+B,H,W) of (n,F) or (n,C,H,W)."""
        M = self.T(x.flatten(1)).unflatten(1, (self.features, self.dimension))  # (n,B,C)
        return _append(x, self.closeness(M) / len(x))


def minibatch_features(name: Minibatch, inputs: int) -> tuple[list[nn.Module], int]:
    """The layer that appends features of the batch to `inputs` numbers an image, if any, and how many it appends."""
    match name:
        case "none":
            return [], 0
        case "std":
            return [MinibatchStd()], MinibatchStd.features
        case "discrimination":
            layer = MinibatchDiscrimination(inputs)
            return [layer], layer.features
    raise ValueError(f"unknown minibatch {name!r}; choose from: none, std, discrimination")


def bound_slopes(net: nn.Module) -> None:
    """Divides every weight matrix of `net` by its largest singular value, from now on (in place).

    Miyato et al. 2018, *Spectral normalization for GANs*, arXiv:1802.05957: one power step at each training pass; a
    convolution's matrix is its kernel as (outputs, inputs·k·k). Biases and the scales of norms are left alone.
    """
    for layer in list(net.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            spectral_norm(layer)


# ---- the discriminator ----------------------------------------------------------------------------------------------


class Critic(nn.Module):
    """A discriminator that is a chain of layers: forward takes images (B,C,H,W) and gives logits (B/pack,).

    Attributes:
        classes: how many classes it is told about.
        pack: how many neighbours of the batch, stacked along the channels, get one judgement between them
            (Lin et al. 2018, *PacGAN*, arXiv:1712.04086). Reals must be neighbours of reals.
    """

    classes: int = 0

    def __init__(self, pack: int = 1) -> None:
        super().__init__()
        if pack < 1:
            raise ValueError(f"pack is how many images are judged together, 1 or more; got {pack}")
        self.pack = pack

    def layers(self) -> Iterable[nn.Module]:
        """The chain, first to last."""
        raise NotImplementedError

    def inputs(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What the first layer sees of images (B,C,H,W): packs (B/pack,pack*C,H,W)."""
        return self.packed(x)

    def packed(self, x: Tensor) -> Tensor:
        """(B/pack,pack*n,…) of (B,n,…)."""
        if self.pack == 1:
            return x
        self._check_packs(len(x))
        return x.unflatten(0, (-1, self.pack)).flatten(1, 2)

    def input_gradient(self, x: Tensor, y: Tensor | None = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Logits (B/pack,) of images x and the gradient (B,C,H,W) of their sum, differentiable in the weights.

        Keyword arguments (the level of a growing critic) go to `forward`, and autograd takes the gradient.
        """
        chain = None if any(v is not None for v in kwargs.values()) else rules(self.layers())
        if chain is None:
            return gradient_by_autograd(lambda images: self(images, y, **kwargs), x)
        logits, g = gradient_by_rules(chain, self.inputs(x, y))
        return logits.flatten(), g.reshape(len(x), -1)[:, : x[0].numel()].reshape(x.shape)  # labels are not images

    def bind(self, *args: Any, **kwargs: Any) -> BoundCritic:
        """This critic with labels or a level given, as penalties take one; its gradient stays written out.

        Where ``functools.partial(D, y=y)`` hides `input_gradient`, so that a penalty differentiates twice, this does not.
        """
        return BoundCritic(self, *args, **kwargs)

    @property
    def mixes(self) -> bool:
        """Whether the logit of a pack depends on the rest of the batch, so that reals and fakes need batches apart."""
        kinds = (MinibatchStd, MinibatchDiscrimination, nn.modules.batchnorm._BatchNorm)
        return any(isinstance(layer, kinds) for layer in self.modules())

    def check_batch(self, n: int) -> None:
        """Refuses batches of n images that mean nothing to this net.

        Raises:
            ValueError: `pack` does not divide n, or there is nothing to compare within the batch.
        """
        self._check_packs(n)
        kinds = (MinibatchStd, MinibatchDiscrimination, nn.BatchNorm1d)
        if n < 2 * self.pack and any(isinstance(layer, kinds) for layer in self.modules()):
            raise ValueError(
                f"features and norms of the batch compare judgements, and a batch of {n} has only one; use batches of "
                f"{2 * self.pack} images or more, or minibatch=none without batch norm"
            )

    def _check_packs(self, n: int) -> None:
        if n % self.pack:
            raise ValueError(
                f"pack={self.pack} judges {self.pack} images at a time, which does not divide a batch of {n}; "
                f"use a batch size that is a multiple of {self.pack}, or pack=1"
            )


class BoundCritic:
    """A critic of images alone: the other arguments of a `Critic` are given once."""

    def __init__(self, critic: Critic, *args: Any, **kwargs: Any) -> None:
        self.critic, self.args, self.kwargs = critic, args, kwargs

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self.critic(x, *self.args, **self.kwargs)
        return logits

    def input_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images x and the gradient of their sum, as `Critic.input_gradient` gives them."""
        return self.critic.input_gradient(x, *self.args, **self.kwargs)
