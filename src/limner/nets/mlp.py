"""Fully connected nets: encoder, decoder or generator, and discriminator.

On (1,28,28) `Encoder(z=3)` and `Decoder(z=3)` have 218,643 parameters together, `Decoder(z=100, widths=(256,))` 227,344
and `Discriminator(widths=(256,))` 201,217.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from limner.nets import _labels as labels
from limner.nets import protocols
from limner.nets._critic import Critic, Minibatch, apply_spectral_norm, minibatch_features, projected
from limner.nets._layers import (
    Activation,
    Output,
    TransposedLinear,
    VectorNorm,
    activation,
    always_on_dropout,
    check_batch_norm,
    needs_bias,
    norm_1d,
    output,
)


def _hidden(
    inputs: int,
    widths: tuple[int, ...],
    act: Activation,
    norm: VectorNorm = "none",
    dropout: float = 0.0,
    size: int = 0,
) -> nn.ModuleList:
    """Linear layer, norm, activation and dropout for each width; labels of `size` numbers choose scales and shifts."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Linear(a, b, bias=needs_bias(norm)), *_norm(norm, b, size), activation(act), *always_on_dropout(dropout)
        )
        for a, b in pairwise((inputs, *widths))
    )


def _norm(name: VectorNorm, units: int, size: int) -> list[nn.Module]:
    norms = norm_1d(name, units, affine=not size)
    return [labels.ConditionalNorm(norm, size, units) for norm in norms] if size else norms


class Encoder(protocols.Encoder):
    """Image (B,C,H,W) -> code (B, heads*z), with no activation on the code.

    Args:
        z: size of the code. Raise it if reconstructions lack detail; lower it for a stronger compression.
        widths: units of each hidden layer, first to last. Raise them if the training loss stays high; lower them
            if held-out images come out much worse than training images.
        heads: number of vectors of size z in the output: 1 for an autoencoder, 2 (mean and log variance) for a VAE.
        activation: activation of each hidden layer. Use leaky_relu or elu if many units stay at zero.
        conditional: whether the class of each image is an input too, as a one-hot vector. Needs labelled data.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int,
        widths: tuple[int, ...] = (128, 64),
        heads: int = 1,
        activation: Activation = "relu",
        conditional: bool = False,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.z, self.code_shape, self.heads = z, (z,), heads
        self.classes = labels.one_hot_size(conditional, classes)
        inputs = prod(shape) + self.classes
        self.hidden = _hidden(inputs, widths, activation)
        self.head = nn.Linear((inputs, *widths)[-1], heads * z)

    def layers(self, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
        """The output of every layer: one (B,width) for each hidden layer, then the code (B,heads*z)."""
        h = labels.append_vectors(x.flatten(1), y, self.classes)
        outputs = []
        for block in (*self.hidden, self.head):
            h = block(h)
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,heads*z) of images (B,C,H,W)."""
        return self.layers(x, y)[-1]


class Decoder(protocols.Decoder):
    """Code (B,z) -> image (B, outputs*C, H, W). Also the generator of an MLP GAN.

    Args:
        z: size of the code.
        widths: units of each hidden layer, first to last; the encoder's in reverse make a mirror. Raise them if
            images stay blurred; lower them for speed.
        activation: activation of each hidden layer.
        out: "tanh" keeps images in [-1,1]; "linear" for a likelihood or a loss that takes logits.
        conditional: whether the label of each image is an input too: true appends its vector to the code; with "cbn" it
            chooses the scale and shift of every norm (conditional batch norm, de Vries et al. 2017). Needs labelled
            data.
        outputs: maps for each channel: 1, or 2 for a mean and a log scale; tanh acts on the first one only.
        norm: normalisation of each hidden layer. Use "batch" if a generator does not start to learn, or "layer", which
            normalises each image separately.
        dropout: probability of dropping a hidden unit, in training and in sampling: a second source of noise for a
            generator. Raise it (to 0.5, say) if samples are too alike; lower it if they are noisy.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        z: int,
        widths: tuple[int, ...] = (64, 128),
        activation: Activation = "relu",
        out: Output = "tanh",
        conditional: bool | Literal["cbn"] = False,
        outputs: int = 1,
        norm: VectorNorm = "none",
        dropout: float = 0.0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.z, self.code_shape = z, (z,)
        self.classes = labels.one_hot_size(conditional, classes)
        self.norm = norm
        by_norm = self.classes if conditional == "cbn" else 0
        if by_norm and norm == "none":
            raise ValueError("conditional=cbn sets the scale and shift of a norm; use norm=batch, or conditional=true")
        self.appended = self.classes - by_norm
        inputs = z + self.appended
        self.hidden = _hidden(inputs, widths, activation, norm, dropout, by_norm)
        self.head = nn.Linear((inputs, *widths)[-1], outputs * prod(shape))
        self.out = output(out, prod(shape), outputs)
        self.image_shape = (outputs * shape[0], *shape[1:])

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,outputs*C,H,W) of codes (B,z)."""
        h = labels.append_vectors(z, y, self.appended)
        h = labels.through(self.hidden, h, y)
        return self.out(self.head(h)).unflatten(1, self.image_shape)

    def check_batch(self, n: int) -> None:
        """Refuses batches of a single image, which has no variance for batch norm."""
        if self.norm == "batch":
            check_batch_norm(n)


class Discriminator(Critic):
    """Image (B,C,H,W) -> logits (B/pack,): positive means real.

    Args:
        widths: units of each hidden layer. Raise them if the generator wins at once; lower them if its loss only grows.
        activation: activation of each hidden layer; leaky_relu passes gradients on to the generator.
        conditional: whether the label of each image is an input too: true appends its vector to the image; "projection"
            adds the product of the last hidden layer with a learnt vector of the label to the logit (Miyato and Koyama
            2018), which suits many classes. Needs labelled data.
        norm: normalisation of each hidden layer. Use "layer" with gradient penalties, for which a logit must depend on
            one image; "batch" mixes the images of a batch.
        spectral: whether to divide every weight by its largest singular value (Miyato et al. 2018), which bounds D's
            gradient. Use it, with norm=none, if D wins; it is not needed with a gradient penalty.
        minibatch: features of the batch, with which D sees that samples are too alike: "std", one number for how much
            images differ (Karras et al. 2018), or "discrimination", how close each is to the others in 100 learned
            spaces (Salimans et al. 2016). "none" if D wins at once with them.
        pack: images that get one logit (Lin et al. 2018). Raise it (to 2, 3 or 4) if modes are missing; lower it for
            more logits from the same images. It must divide the batch.
        classifiers: vectors of class logits that D gives besides its logit: 1 for AC-GAN, 2 for its successors.
        shape: (C,H,W) of an image; filled from the data.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (256,),
        activation: Activation = "leaky_relu",
        conditional: bool | Literal["projection"] = False,
        norm: VectorNorm = "none",
        spectral: bool = False,
        minibatch: Minibatch = "none",
        pack: int = 1,
        classifiers: int = 0,
        *,
        shape: tuple[int, int, int],
        classes: int = 0,
    ) -> None:
        super().__init__(pack)
        self.classes = labels.one_hot_size(conditional, classes)
        self.appended = 0 if conditional == "projection" else self.classes
        inputs = pack * (prod(shape) + self.appended)
        self.hidden = _hidden(inputs, widths, activation, norm)
        last = (inputs, *widths)[-1]
        features, extra = minibatch_features(minibatch, last)
        self.batch = nn.Sequential(*features)
        head = nn.Linear(last + extra, 1)
        self.head = projected(head, last + extra, self.classes, pack) if conditional == "projection" else head
        self.add_classifiers(classifiers, last + extra, classes)
        if spectral:
            apply_spectral_norm(self)

    def layers(self) -> Iterable[nn.Module]:
        return (*self.hidden, self.batch, self.head)

    def inputs(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Input of the first layer for images (B,C,H,W): (B/pack,pack*(C*H*W+classes))."""
        return self.packed(labels.append_vectors(x.flatten(1), y, self.appended))


def tie(encoder: nn.Module, decoder: nn.Module) -> None:
    """Ties the weights of `decoder` in place: they become the transposes of `encoder`'s, layer by layer in reverse.

    The decoder keeps its biases. Optimise, save and copy both nets together, as parts of one module.

    Raises:
        ValueError: the nets are not of this module, or do not mirror each other.
    """
    if not (isinstance(encoder, Encoder) and isinstance(decoder, Decoder)):
        raise ValueError("tied weights need mlp.Encoder and mlp.Decoder; use those, or tie_weights=false")
    encoder_layers = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
    decoder_layers = [(name, m) for name, m in decoder.named_modules() if isinstance(m, nn.Linear)]
    shapes = [tuple(layer.weight.shape) for _, layer in decoder_layers]
    mirrored = [(layer.in_features, layer.out_features) for layer in reversed(encoder_layers)]
    if shapes != mirrored:
        raise ValueError(
            f"tied weights need a decoder that mirrors its encoder: its layers (out, in) are {shapes}, not {mirrored}; "
            "reverse the encoder's widths, with heads=1, outputs=1 and conditional=false"
        )
    for source, (name, layer) in zip(reversed(encoder_layers), decoder_layers, strict=True):
        decoder.set_submodule(name, TransposedLinear(source, layer.bias))
