"""What discriminators share: packing, features of the batch, spectral norm, and the gradient at their input.

The gradient of layers in a row with respect to their input is a chain of vector-Jacobian products (VJP), last layer
first. Each of them is a forward operation with the same weights: a matrix product for a linear layer, a transposed
convolution for a convolution, a product with the derivative for an activation. So the gradient is an ordinary function
of the weights, and a penalty on it needs one ordinary backward pass. For piecewise linear activations (ReLU, LeakyReLU,
maxout) that pass does not go through the layers' outputs. Nets with other layers (normalisation, features of the batch)
are differentiated twice by autograd, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import type_before_parametrizations

from limner.nets import _labels as labels
from limner.nets._layers import Maxout, SameConv2d

aten = torch.ops.aten
Minibatch = Literal["none", "std", "discrimination"]


# ---- the gradient at the input --------------------------------------------------------------------------------------

VJP = Callable[[Tensor], Tensor]  # the gradient at a layer's output -> that at its input
Rule = Callable[..., tuple[Tensor, VJP]]  # a layer and its input (and labels) -> its output and its VJP


def _linear(layer: nn.Linear, x: Tensor) -> tuple[Tensor, VJP]:
    w = layer.weight  # read once: with spectral norm every read takes a power iteration
    return F.linear(x, w, layer.bias), lambda g: g @ w


def _conv(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, VJP]:
    w, stride, dilation, groups = layer.weight, layer.stride, layer.dilation, layer.groups
    pad = [int(p) for p in layer.padding]
    sizes = zip(x.shape[2:], pad, dilation, layer.kernel_size, stride)
    output_padding = [(n + 2 * p - d * (k - 1) - 1) % s for n, p, d, k, s in sizes]  # restores the input's size
    h = F.conv2d(x, w, layer.bias, stride, pad, dilation, groups)
    return h, lambda g: F.conv_transpose2d(g, w, None, stride, pad, output_padding, groups, dilation)


def _same_conv(layer: SameConv2d, x: Tensor) -> tuple[Tensor, VJP]:
    pads = layer.pads(x)
    h, vjp = _conv(layer, F.pad(x, pads))
    return h, lambda g: F.pad(vjp(g), [-p for p in pads])


def _maxout(layer: Maxout, x: Tensor) -> tuple[Tensor, VJP]:
    pieces = x.unflatten(1, (-1, layer.pieces))
    h, argmax = pieces.max(2, keepdim=True)
    return h.squeeze(2), lambda g: torch.zeros_like(pieces).scatter(2, argmax, g[:, :, None]).flatten(1)


def _dropout(layer: nn.Dropout, x: Tensor) -> tuple[Tensor, VJP]:
    mask = F.dropout(torch.ones_like(x), layer.p, layer.training)
    return x * mask, lambda g: g * mask


def _flatten(layer: nn.Flatten, x: Tensor) -> tuple[Tensor, VJP]:
    return layer(x), lambda g: g.view(x.shape)


def _shift(layer: labels.Shift, x: Tensor, y: Tensor | None) -> tuple[Tensor, VJP]:
    return layer(x, y), lambda g: g


def _projection(layer: labels.Projection, x: Tensor, y: Tensor | None) -> tuple[Tensor, VJP]:
    linear, vjp = RULES[type_before_parametrizations(layer.head)](layer.head, x)
    v = layer.V(y)  # (B,F), read once
    logits = linear.flatten() + (v * x.flatten(1)).sum(1)
    return logits, lambda g: vjp(g.view_as(linear)) + (g[:, None] * v).view_as(x)


def _pointwise(vjp: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> Rule:
    """The rule of an activation h = f(x) whose VJP is g·f'(x)."""

    def rule(layer: nn.Module, x: Tensor) -> tuple[Tensor, VJP]:
        h = layer(x)
        return h, lambda g: vjp(layer, x, h, g)

    return rule


def _silu(layer: nn.SiLU, x: Tensor, h: Tensor, g: Tensor) -> Tensor:
    s = x.sigmoid()  # PyTorch's kernel of this derivative is not differentiable
    return g * s * (1 + x * (1 - s))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    SameConv2d: _same_conv,
    Maxout: _maxout,
    nn.Dropout: _dropout,
    nn.Flatten: _flatten,
    labels.Shift: _shift,
    labels.Projection: _projection,
    # The kernels of PyTorch's backward pass. A piecewise constant derivative needs no gradient through h: hence detach.
    nn.ReLU: _pointwise(lambda layer, x, h, g: aten.threshold_backward(g, h.detach(), 0)),
    nn.LeakyReLU: _pointwise(
        lambda layer, x, h, g: aten.leaky_relu_backward(g, x.detach(), layer.negative_slope, False)
    ),
    nn.Tanh: _pointwise(lambda layer, x, h, g: aten.tanh_backward(g, h)),
    nn.Sigmoid: _pointwise(lambda layer, x, h, g: aten.sigmoid_backward(g, h)),
    nn.ELU: _pointwise(lambda layer, x, h, g: aten.elu_backward(g, layer.alpha, 1, 1, False, x)),
    nn.SiLU: _pointwise(_silu),
}


def _flat(layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def rules(layers: Iterable[nn.Module]) -> list[tuple[Rule, nn.Module]] | None:
    """Each layer with its rule, Sequentials flattened; None if a layer has no rule."""
    pairs = [(RULES.get(type_before_parametrizations(layer)), layer) for layer in _flat(layers)]
    return None if any(rule is None for rule, _ in pairs) else [(rule, layer) for rule, layer in pairs if rule]


def compose(chain: Iterable[tuple[Rule, nn.Module]], x: Tensor, y: Tensor | None = None) -> tuple[Tensor, VJP]:
    """The output of a chain of layers, some of which may take labels y, and its VJP."""
    vjps = []
    for rule, layer in chain:
        x, vjp = rule(layer, x, y) if isinstance(layer, labels.Labelled) else rule(layer, x)
        vjps.append(vjp)
    return x, lambda g: reduce(lambda v, vjp: vjp(v), reversed(vjps), g)


def gradient_by_rules(
    chain: Iterable[tuple[Rule, nn.Module]], x: Tensor, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The output of a chain of layers and the gradient of its sum at x, by forward operations only."""
    h, vjp = compose(chain, x, y)
    return h, vjp(torch.ones_like(h)).to(x.dtype)


def gradient_by_autograd(net: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of any net and the gradient of its sum at x, by autograd; differentiable if gradients are enabled."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        out = net(x)
        (g,) = torch.autograd.grad(out.sum(), x, create_graph=differentiable)
    return out if differentiable else out.detach(), g


# ---- features of the batch ------------------------------------------------------------------------------------------


def _append(x: Tensor, features: Tensor) -> Tensor:
    """Returns x (n,F) or (n,C,H,W) with features (n,K) appended to dimension 1, as constant maps if x has maps."""
    if x.dim() == 4:
        features = features[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, features], 1)


class MinibatchStd(nn.Module):
    """Appends one feature: how much the images of a group differ (minibatch standard deviation).

    Karras et al. 2018, *Progressive growing of GANs*, arXiv:1710.10196, section 3: the standard deviation over the
    images of each feature at each position, averaged over features and positions. Their text takes all images of the
    batch, their code groups of 4. Here a group is 4 neighbours of the batch, or 3 or 2 if 4 does not divide the batch,
    or the whole batch if none of them does. If 4 divides two batches, their concatenation gives the same features.
    """

    features = 1

    def forward(self, x: Tensor) -> Tensor:
        """(n,F+1) or (n,C+1,H,W) of (n,F) or (n,C,H,W)."""
        n = len(x)
        group = next((k for k in (4, 3, 2) if n % k == 0), n)
        variance = x.unflatten(0, (-1, group)).var(1, correction=0)  # (n/group,…)
        std = (variance + 1e-8).sqrt().flatten(1).mean(1)  # the 1e-8 of their code: the root is differentiable at 0
        return _append(x, std[:, None].expand(-1, group).reshape(n, 1))


class MinibatchDiscrimination(nn.Module):
    """Appends features of how close each image is to the others in learned spaces (minibatch discrimination).

    Salimans et al. 2016, *Improved techniques for training GANs*, arXiv:1606.03498, section 3.2. The sum of the paper
    is divided by the batch size: otherwise every feature is n while all images look alike, much larger than the others.
    The defaults are those of the authors' code for images of 32 pixels.

    Args:
        inputs: number of features of one image.
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
    """The layer, if any, that appends features of the batch to `inputs` features an image, and their number."""
    match name:
        case "none":
            return [], 0
        case "std":
            return [MinibatchStd()], MinibatchStd.features
        case "discrimination":
            layer = MinibatchDiscrimination(inputs)
            return [layer], layer.features
    raise ValueError(f"unknown minibatch {name!r}; choose from: none, std, discrimination")


def projected(head: nn.Linear | nn.Conv2d, features: int, size: int, pack: int) -> labels.Projection:
    """The last layer of a projection discriminator, around the last layer of an unconditional one.

    Raises:
        ValueError: the net packs images.
    """
    if pack > 1:
        raise ValueError("a pack of images has no label to project on; use pack=1, or conditional=true")
    return labels.Projection(head, size, features)


def apply_spectral_norm(net: nn.Module) -> None:
    """Adds spectral normalisation to `net` in place: every weight matrix is divided by its largest singular value.

    Miyato et al. 2018, *Spectral normalization for GANs*, arXiv:1802.05957: one power iteration at each training pass;
    a convolution's matrix is its kernel as (outputs, inputs·k·k). Biases and the scales of norms are not changed, nor
    what a label adds before the first activation, which does not change D's slope in the image; the V of a projection
    is normalised.
    """
    for layer in list(net.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            spectral_norm(layer)
        elif isinstance(layer, labels.Projection):
            spectral_norm(layer.V)


# ---- the discriminator ----------------------------------------------------------------------------------------------


class Critic(nn.Module):
    """Base of discriminators: images (B,C,H,W) -> logits (B/pack,), high means real.

    A subclass sets `net`, or overrides `layers` if its layers are not one Sequential. The last layer gives the logits;
    what it gets are the features φ(x).

    Attributes:
        classes: length of the labels' vectors, such as the number of classes; 0 if the net does not take labels.
        classifiers: number of class-logit vectors that `classify` gives besides the logits, such as 1 for AC-GAN.
        pack: number of neighbours of the batch that are stacked along the channels and get one logit (Lin et al. 2018,
            *PacGAN*, arXiv:1712.04086). A pack must not have both real and generated images.
    """

    classes: int = 0
    classifiers: int = 0
    net: nn.Sequential | nn.ModuleList
    C: nn.Linear

    def __init__(self, pack: int = 1) -> None:
        super().__init__()
        if pack < 1:
            raise ValueError(f"pack is the number of images that get one logit, 1 or more; got {pack}")
        self.pack = pack

    def layers(self) -> Iterable[nn.Module]:
        """The layers in order."""
        return self.net

    def inputs(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Input of the first layer for images (B,C,H,W): packs (B/pack,pack*C,H,W)."""
        return self.packed(x)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (B/pack,) of images (B,C,H,W)."""
        return labels.through(self.layers(), self.inputs(x, y), y).flatten()

    def add_classifiers(self, classifiers: int, features: int, classes: int) -> None:
        """Adds linear layers from φ(x), of so many features, to class logits; a subclass calls it in its constructor.

        Raises:
            ValueError: there are no classes, or the net packs images.
        """
        if classifiers < 0:
            raise ValueError(f"classifiers is the number of class-logit vectors, 0 or more; got {classifiers}")
        if classifiers and classes < 1:
            raise ValueError("classifiers needs data with class labels; use a labelled set or classifiers=0")
        if classifiers and self.pack > 1:
            raise ValueError("a pack of images has no class; use pack=1 or classifiers=0")
        if classifiers:
            self.classifiers, self.C = classifiers, nn.Linear(features, classifiers * classes)

    def classify(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (B,) of images (B,C,H,W), and `classifiers` vectors of class logits (B,classes)."""
        *body, head = self.layers()
        phi = labels.through(body, self.inputs(x, y), y)
        return labels.through([head], phi, y).flatten(), self.C(phi.flatten(1)).chunk(self.classifiers, 1)

    def packed(self, x: Tensor) -> Tensor:
        """Packs (B/pack,pack*n,…) of inputs (B,n,…)."""
        if self.pack == 1:
            return x
        self._check_packs(len(x))
        return x.unflatten(0, (-1, self.pack)).flatten(1, 2)

    def input_gradient(self, x: Tensor, y: Tensor | None = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Logits (B/pack,) of images x and the gradient (B,C,H,W) of their sum, differentiable in the weights.

        With keyword arguments of `forward` (the level of a growing critic) the gradient is autograd's.
        """
        chain = None if any(v is not None for v in kwargs.values()) else rules(self.layers())
        if chain is None:
            return gradient_by_autograd(lambda images: self(images, y, **kwargs), x)
        logits, g = gradient_by_rules(chain, self.inputs(x, y), y)
        return logits.flatten(), g.reshape(len(x), -1)[:, : x[0].numel()].reshape(x.shape)  # without the labels' part

    def bind(self, *args: Any, **kwargs: Any) -> BoundCritic:
        """This critic with fixed labels or a fixed level, for penalties.

        Unlike ``functools.partial(D, y=y)`` it keeps `input_gradient`, so that a penalty need not differentiate twice.
        """
        return BoundCritic(self, *args, **kwargs)

    @property
    def mixes(self) -> bool:
        """Whether a logit depends on the rest of the batch, so that reals and fakes need separate batches."""
        kinds = (MinibatchStd, MinibatchDiscrimination, nn.modules.batchnorm._BatchNorm)
        return any(isinstance(layer, kinds) for layer in self.modules())

    def check_batch(self, n: int) -> None:
        """Checks that this net can be trained on batches of n images.

        Raises:
            ValueError: `pack` does not divide n, or n is too small for features of the batch or batch norm.
        """
        self._check_packs(n)
        kinds = (MinibatchStd, MinibatchDiscrimination, nn.BatchNorm1d)
        if n < 2 * self.pack and any(isinstance(layer, kinds) for layer in self.modules()):
            raise ValueError(
                f"batch norm and features of the batch compare inputs, and a batch of {n} has only one; use batches of "
                f"{2 * self.pack} images or more, or minibatch=none without batch norm"
            )

    def _check_packs(self, n: int) -> None:
        if n % self.pack:
            raise ValueError(
                f"pack={self.pack} does not divide a batch of {n}; use batches of a multiple of {self.pack}, or pack=1"
            )


class BoundCritic:
    """A `Critic` whose arguments other than the images are fixed."""

    def __init__(self, critic: Critic, *args: Any, **kwargs: Any) -> None:
        self.critic, self.args, self.kwargs = critic, args, kwargs

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self.critic(x, *self.args, **self.kwargs)
        return logits

    def input_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images x and the gradient of their sum, see `Critic.input_gradient`."""
        return self.critic.input_gradient(x, *self.args, **self.kwargs)
