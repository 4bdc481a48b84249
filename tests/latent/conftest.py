"""Models that are known in closed form, and small ones of every family with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limner.bench.shrink import narrow
from limner.config import recipe as recipes
from limner.config.spec import Spec, arguments
from limner.core import checkpoint
from limner.core.condition import Classes
from limner.core.model import GenerativeModel
from limner.core.prior import Prior

SIDE = 8
FAMILIES = {
    "autoencoder": "ae-mnist",
    "vae": "vae-mnist",
    "gan": "gan-mnist",
    "flow": "realnvp-mnist",
    "diffusion": "ddpm-mnist",
    "conditional": "cgan-mlp-mnist",
    "stylegan": "stylegan2-mnist",
}
"""A recipe of each family whose latent space is looked into."""


class Linear(GenerativeModel):
    """Images are 0.1 A z, in float64: what tools measure of it can be computed by hand."""

    def __init__(self, z: int = 3, kind: Any = "normal", shape: tuple[int, int, int] = (1, 2, 2)) -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="linear", to_dict=lambda: {"z": z})
        self.prior, self.shape = Prior(kind, z), shape
        A = torch.randn(4, z, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.A = nn.Parameter(0.1 * A)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z.to(self.A) @ self.A.T).view(-1, *self.shape)


class Invertible(Linear):
    """The same with an encoder that is its inverse."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1).to(self.A) @ torch.linalg.pinv(self.A).T


class Styled(GenerativeModel):
    """Row l of an image is the style of layer l."""

    L = 4

    def __init__(self) -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="styled", to_dict=lambda: {"L": 4})
        self.prior, self.factors = Prior("normal", 3), torch.ones(self.L)
        self.M = nn.Parameter(0.2 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.0, 0.5]]))

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.M.T)[:, None].expand(-1, self.L, -1)

    def truncated_styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.factors[:, None] * self.styles(z)

    def synthesise(self, ws: Tensor) -> Tensor:
        return ws[:, None]

    def mean_style(self, y: Tensor | None = None) -> Tensor:
        return torch.zeros(1, self.L, 3)

    def modulations(self) -> list[Tensor]:
        return [torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.synthesise(self.styles(z))


@pytest.fixture
def styled() -> Styled:
    return Styled().eval()


@pytest.fixture
def linear() -> Linear:
    return Linear().eval()


@pytest.fixture
def invertible() -> Invertible:
    return Invertible().eval()


@pytest.fixture(scope="session")
def family_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a small model of a family, with random weights: `family_file("vae")`."""
    folder, facts = tmp_path_factory.mktemp("families"), Classes(10)
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            tree = recipes.load(FAMILIES.get(family, family)).to_dict()["model"]
            narrow(tree)
            if "sampling" in arguments("model", tree["name"]):
                tree["sampling"] = {**(tree.get("sampling") or {}), "steps": 2}
            spec = Spec.parse("model", tree).resolve(shape=(1, SIDE, SIDE), classes=10, condition=facts.header())
            torch.manual_seed(0)
            model = spec.build()
            model.spec = spec
            for p in model.parameters():  # so that points make a visible difference
                if p.dim() > 1:
                    p.data.mul_(2)
            made[family] = checkpoint.export(model.eval(), folder / f"{family}.safetensors")
        return made[family]

    return of
