"""InfoGAN: a GAN whose generator is made to keep some of its input readable in the image.

Chen, Duan, Houthooft, Schulman, Sutskever and Abbeel 2016 (arXiv 1606.03657), eq. 3 to 6 and appendix C.

    repeat
        x ~ data;  z ~ noise;  c ~ P(c)
        L_I = E log Q(c | G(z, c)) + H(c)           a lower bound of the mutual information I(c; G(z, c))
        ascend for D and Q   log D(x) + log(1 - D(G(z, c))) + lambda L_I
        z ~ noise;  c ~ P(c)
        ascend for G         log D(G(z, c)) + lambda L_I

Q shares all layers of D but the last, and gets its features of *generated* images only. So the gradient of L_I reaches
G, Q and the shared layers, and not D's last one. D, with Q, descends on -lambda L_I like G, as in the authors' code.

L_I is in nats and logged for each code as ``term/bound_c1``, …. It cannot exceed H(c) of a categorical code: log 10 =
2.30 nats. For a uniform code Q is a Gaussian, so with sigma = 1, as in the authors' code for digits, its bound stays
below log 2 - log(2 pi)/2 = -0.23 nats though the code may be read from the image well; sigma=null learns sigma. Their
code has E[-log N(c; 0, 1)] of the drawn codes in the place of H(c) = log 2. Neither depends on the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from math import log

import torch
from torch import Tensor, nn

from limner.core.adversarial import AdversarialModel, adversarial_logs
from limner.core.codes import Code, CodePrior
from limner.core.model import Data, Logs, Update
from limner.core.previews import COLUMNS, Grid
from limner.losses import likelihood as log_q
from limner.losses.adversarial import nonsaturating
from limner.nets.infogan import recogniser
from limner.nets.protocols import FeatureCritic, Generator

_STEPS = 10  # columns of a traversal


class InfoGAN(AdversarialModel):
    """Generator, discriminator, and Q, which estimates the codes from D's features.

    Args:
        G: net from noise and codes (B,z) to images (B,C,H,W) in [-1,1]. What the codes leave of its z is noise.
        D: net from images to logits (B,) with its last layer apart, such as infogan.Discriminator.
        codes: the codes c1, c2, …: a number is a categorical code with so many values, `uniform` one on [-1,1]. Add
            uniform codes if the data vary in more ways; take codes away if some change nothing.
        information: lambda, the weight of L_I for categorical codes. Raise it if the bound stays far below H(c); lower
            it if images get worse.
        continuous: the weight for uniform codes. Raise it if they change nothing; lower it if images get worse.
        sigma: standard deviation of Q for uniform codes, 1 in the authors' code for digits; null learns it for each
            image. Lower it to weigh the errors of uniform codes more; raise it to weigh them less.
        q_hidden: units of Q's hidden layer. Raise it if the bound stays low; lower it for speed.
    """

    static = True
    objective = nonsaturating
    D: FeatureCritic
    prior: CodePrior

    def __init__(
        self,
        G: Generator,
        D: FeatureCritic,
        codes: tuple[Code, ...] = (10, "uniform", "uniform"),
        information: float = 1.0,
        continuous: float = 1.0,
        sigma: float | None = 1.0,
        q_hidden: int = 128,
    ) -> None:
        super().__init__()
        if information < 0 or continuous < 0:
            raise ValueError(f"information and continuous must not be negative, got {information:g} and {continuous:g}")
        if sigma is not None and sigma <= 0:
            raise ValueError(f"sigma must be above 0, got {sigma:g}; 1 is usual, and null learns it")
        self.G, self.D, self.prior = G, D, CodePrior(codes, G.z)
        self.information, self.continuous, self.sigma = information, continuous, sigma
        self.outputs = [(1 if sigma else 2) if code == "uniform" else code for code in self.prior.codes]
        self.Q: nn.Module = recogniser(D.features, sum(self.outputs), q_hidden)

    def groups(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": nn.ModuleList([self.D, self.Q])}

    def step(self, data: Data, update: Update) -> Logs:
        x = next(data).x  # (B,C,H,W) in [-1,1]
        z = self.prior.batch(len(x), data)  # (B,z): noise and codes
        with torch.no_grad():
            fake = self.G(z)
        h = self.D.trunk(fake)  # (B,F), of generated images only
        real_logits, fake_logits = self.D(x), self.D.head(h).flatten()
        loss_D = nonsaturating.d(real_logits, fake_logits)
        update("D", loss_D - self.weighted(self.bounds(h, z)))
        z = self.prior.batch(len(x), data)
        h = self.D.trunk(self.G(z))
        loss_G, bounds = nonsaturating.g(self.D.head(h).flatten(), None), self.bounds(h, z)
        update("G", loss_G - self.weighted(bounds))
        terms = {f"bound_{name}": bound for name, bound in bounds.items()}
        return adversarial_logs(loss_D, loss_G, real_logits, fake_logits, terms)

    def bounds(self, h: Tensor, z: Tensor) -> dict[str, Tensor]:
        """L_I in nats for each code by its name, from D's features h (B,F) of images generated from z (B,z)."""
        q, entropy = self.Q(h).split(self.outputs, 1), self.prior.entropies
        return {
            name: (self._log_q(q_k, c) if code == "uniform" else log_q.categorical(q_k, c)).mean() + entropy[name]
            for name, code, q_k, c in zip(self.prior.names, self.prior.codes, q, self.prior.split(z), strict=True)
        }

    def _log_q(self, q: Tensor, c: Tensor) -> Tensor:
        """The log density (B,) of uniform codes c (B,1) from q (B,1): a mean, or (B,2): a mean and log σ²."""
        logvar = q[:, 1:] if self.sigma is None else torch.full_like(q, 2 * log(self.sigma))
        return log_q.gaussian(q[:, :1], logvar, c)

    def weighted(self, bounds: Mapping[str, Tensor]) -> Tensor:
        """The sum of the bounds with the weights of categorical and of uniform codes."""
        weights = [self.continuous if code == "uniform" else self.information for code in self.prior.codes]
        return torch.stack(
            [weight * bounds[name] for name, weight in zip(self.prior.names, weights, strict=True)]
        ).sum()

    @property
    def code_values(self) -> dict[str, int]:
        """The number of values of each code by its name; 0 for a uniform one."""
        pairs = zip(self.prior.names, self.prior.codes, strict=True)
        return {name: 0 if code == "uniform" else code for name, code in pairs}

    def estimate_codes(self, x: Tensor) -> Tensor:
        """Q's estimate (B,K) of the codes of images (B,C,H,W): the likeliest value, or the mean of a uniform code."""
        parts = self.Q(self.D.trunk(x)).float().split(self.outputs, 1)
        values = [
            q[:, 0] if code == "uniform" else q.argmax(1) for code, q in zip(self.prior.codes, parts, strict=True)
        ]
        return torch.stack([v.float() for v in values], 1)

    @property
    def sampling_options(self) -> dict[str, Parameter]:
        """Each code by its name; those that are not given are drawn."""
        return self.prior.options

    preview_facts: Mapping[str, str] = {
        "details": "Two rows for each code, with a column for each of its values; all else is the same in a row."
    }

    def preview(self, batch: object, n: int, seed: int) -> dict[str, Grid]:
        """Samples with a column for each value of c1, if it is categorical, and two rows of values for each code."""
        values = self.code_values["c1"]
        if 1 < values <= COLUMNS:
            columns = self._traversal("c1", torch.arange(values), -(-n // values), seed)
            samples = columns._replace(headings=[f"c1={k}" for k in range(values)])
        else:
            samples = self.sample_grid(n, seed)
        rows = [
            self._traversal(name, torch.arange(_STEPS) % k if k else torch.linspace(-1, 1, _STEPS), 2, seed).images
            for name, k in self.code_values.items()
        ]
        return {"samples": samples, "details": Grid(torch.cat(rows), _STEPS)}

    @torch.inference_mode()
    def _traversal(self, name: str, values: Tensor, rows: int, seed: int) -> Grid:
        """A grid whose rows are draws, and whose columns are values (T,) of a code."""
        z = self.prior.sample(rows, torch.Generator(self.device).manual_seed(seed), **self.options)
        z = self.prior.fixed(z.repeat_interleave(len(values), 0), {name: values.to(z.device).repeat(rows)})
        return Grid(self.decode(z).float(), len(values))
