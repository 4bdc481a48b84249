"""Conditional adversarial autoencoder: a face at another age, with a code that is what ages do not change.

Zhang, Song and Qi 2017, *Age progression/regression by conditional adversarial autoencoder*, arXiv:1702.08423, eq. 6.

    repeat
        x, y ~ data;  z* ~ U(-1, 1)
        z = E(x);  x^ = G(z, y)
        ascend for D_z    log D_z(z*) + log(1 - D_z(z))
        ascend for D_img  log D_img(x, y) + log(1 - D_img(x^, y))
        descend for E, G  l1 |x - x^| + tv TV(x^) - adv_z log D_z(z) - adv_img log D_img(x^, y)

D_z makes the codes fill the cube evenly, so that walks between faces stay on faces; D_img makes pictures look real *for
their label*. z says who it is and y how old, because G is given y in any case. The weights of the paper's step are the
constructor's. In the authors' published code (`FaceAging.py`, commit cb5a5b2) the weights in use are adv_img = 1e-4 and
adv_z = tv = 0: a plain autoencoder with a label, whose codes need not fill anything. D_z and TV are on here.

Labels may be classes of age in order, or attributes that go with it (grey hair, a beard, glasses), or anything else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limner.core.adversarial import adversarial_logs, require_labels
from limner.core.batch import evenly_spaced
from limner.core.condition import required
from limner.core.model import Data, GenerativeModel, Logs, Update
from limner.core.previews import COLUMNS, Grid
from limner.core.prior import Prior
from limner.losses.adversarial import nonsaturating
from limner.losses.style import total_variation
from limner.losses.translation import l1
from limner.nets.caae import CodeDiscriminator
from limner.nets.protocols import Critic, Decoder, Encoder

_ROWS = 6  # faces of the preview


class CAAE(GenerativeModel):
    """Encoder E, generator G of a code and a label, discriminator D_z of codes and D_img of images with labels.

    Args:
        encoder: E, net from images to codes (B,z) of any range; the model takes their tanh.
        decoder: G, net from codes and labels to images (B,C,H,W) in [-1,1] (conditional: true).
        D_z: net from codes (B,z) to logits (B,); high means from the prior.
        D_img: net from images and labels to logits (B,) (conditional: true).
        z: size of the code. Raise it if faces lose their identity; lower it if samples fall apart.
        l1: weight of the mean absolute difference of image and reconstruction. Raise it to keep the identity; lower it
            if pictures do not follow the label.
        adv_z: weight of log D_z(E(x)). Raise it if codes do not fill the cube (samples fall apart while
            reconstructions are good); lower it if all faces look alike.
        adv_img: weight of log D_img(G(z,y),y). Raise it if pictures are blurred or ignore the label; lower it if they
            have artefacts.
        tv: weight of the total variation of pictures. Raise it against ghosts and noise; lower it if edges blur.
        progression: labels, written as y= is, of the pictures in a row of the previews, in order: the youngest first.
            By default all classes in turn.
        classes: length of the labels' vectors, such as the number of classes; filled from the data.
        condition: names of the classes or attributes; filled from the data.
    """

    ema_groups = ("EG",)
    static = True
    family = "GAN"
    prior: Prior

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        D_z: CodeDiscriminator,
        D_img: Critic,
        z: int = 50,
        l1: float = 1.0,
        adv_z: float = 0.01,
        adv_img: float = 0.01,
        tv: float = 0.001,
        progression: list[str] | None = None,
        *,
        classes: int = 0,
        condition: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.condition = required(condition, classes)
        require_labels(decoder=decoder, D_img=D_img)
        if encoder.code_shape != (decoder.z,) or encoder.heads != 1:
            raise ValueError(f"the encoder must give codes of {decoder.z} numbers and one head; use heads: 1")
        if D_z.z != decoder.z:
            raise ValueError(f"D_z takes codes of {D_z.z} numbers, and G of {decoder.z}; leave D_z.z out")
        if getattr(encoder, "classes", 0):
            raise ValueError("E is not told the label, or codes could hide it; write encoder.conditional=false")
        for name, weight in {"l1": l1, "adv_z": adv_z, "adv_img": adv_img, "tv": tv}.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} is a weight of 0 or more, got {weight:g}")
        self.encoder, self.decoder, self.D_z, self.D_img = encoder, decoder, D_z, D_img
        self.prior = Prior("uniform", decoder.z)
        self.l1, self.adv_z, self.adv_img, self.tv = l1, adv_z, adv_img, tv
        self.progression = progression
        self._row()  # refuses labels that do not exist

    def groups(self) -> dict[str, nn.Module]:
        return {"EG": nn.ModuleList([self.encoder, self.decoder]), "D_z": self.D_z, "D_img": self.D_img}

    def step(self, data: Data, update: Update) -> Logs:
        x, y = next(data)  # (B,C,H,W) in [-1,1], labels (B,…)
        z = self.encode(x)  # (B,z) in (-1,1)
        x_hat = self.decoder(z, y)
        z_star = self.prior.batch(len(x), data)
        # Both in one pass: batch norm of codes alone would hide from D_z where they are and how far they spread.
        prior_logits, code_logits = self.D_z(torch.cat([z_star, z.detach()])).chunk(2)
        loss_D_z = nonsaturating.d(prior_logits, code_logits)  # -log D_z(z*) - log(1 - D_z(z))
        update("D_z", loss_D_z)
        real_logits, fake_logits = self.D_img(x, y), self.D_img(x_hat.detach(), y)
        loss_D_img = nonsaturating.d(real_logits, fake_logits)  # -log D_img(x,y) - log(1 - D_img(x^,y))
        update("D_img", loss_D_img)
        terms = {
            "l1": l1(x_hat, x),
            "adv_z": nonsaturating.g(self.D_z(torch.cat([z_star, z])).chunk(2)[1], None),  # -log D_z(z)
            "adv_img": nonsaturating.g(self.D_img(x_hat, y), None),  # -log D_img(x^,y)
            "tv": total_variation(x_hat),
        }
        weights = {"l1": self.l1, "adv_z": self.adv_z, "adv_img": self.adv_img, "tv": self.tv}
        loss_EG = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        update("EG", loss_EG)
        logs = adversarial_logs(loss_D_img, loss_EG, real_logits, fake_logits, terms)
        return logs | {"loss/D_z": loss_D_z}

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B,z) in (-1,1) of images (B,C,H,W); the label is no input."""
        return torch.tanh(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) in [-1,1] of codes (B,z) with labels (B,…)."""
        return self.decoder(z, y)

    def preview(self, batch: Any, n: int, seed: int) -> dict[str, Grid]:
        """Samples, reconstructions, and a row for each face: itself, its reconstruction, and it with every label."""
        grids = super().preview(batch, n, seed)
        chosen = evenly_spaced(len(batch.x), _ROWS)
        grids["progression"] = self.progression_grid(batch.x[chosen], batch.y[chosen])
        return grids

    @torch.inference_mode()
    def progression_grid(self, x: Tensor, y: Tensor) -> Grid:
        """A row for each image x (B,C,H,W) with its label y (B,…): itself, its reconstruction, then each label."""
        row = self._row().to(x.device)
        z = self.encode(x)
        columns = [x, self.decode(z, y)]
        columns += [self.decode(z, label[None].expand(len(x), *label.shape)) for label in row]
        headings = ["input", "reconstruction", *self.condition.name(row.cpu())]
        return Grid(torch.stack(columns, 1).flatten(0, 1), len(columns), headings)

    def _row(self) -> Tensor:
        """The labels (K,…) of a row of pictures."""
        most = COLUMNS - 2
        if self.progression is None:
            return self.condition.default(min(self.condition.size, most))
        if not 1 <= len(self.progression) <= most:
            raise ValueError(f"progression has {len(self.progression)} labels; write 1 to {most}")
        return self.condition.read(self.progression, len(self.progression))
