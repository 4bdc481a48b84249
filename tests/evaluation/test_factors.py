"""The factor reader reads sprites, and the scores through it are those of models whose latent space is known."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn

from limner import data
from limner.core.batch import to_float
from limner.core.errors import LimnerError
from limner.core.prior import Prior
from limner.data.datasets import Pixels
from limner.data.sources.factors import NAMES, SIZES
from limner.evaluation import factors
from limner.evaluation.factors import canonical, encoded_disentanglement, factor_reader, half_turn, read_disentanglement
from limner.metrics.extractors import features


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the published trees: what these tests ask for does not need more."""
    monkeypatch.setattr("limner.metrics.disentangle._TREES", 20)
    monkeypatch.setattr("limner.metrics.disentangle._RATE", 0.3)


@pytest.fixture(scope="module")
def sprites() -> Pixels:
    return data.load("mini-dsprites", split="all")


@pytest.fixture(scope="module")
def test_set() -> Pixels:
    return data.load("mini-dsprites", split="test")


class Renders(nn.Module):
    """A decoder whose first five numbers, uniform on [-1,1], are the five factors; others do nothing."""

    def __init__(self, sprites: Pixels, z: int = 7, turn: Tensor | None = None, shapes: int = 3) -> None:
        super().__init__()
        self.sprites, self.prior, self.turn, self.shapes = sprites, Prior("uniform", z), turn, shapes

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        z = z if self.turn is None else torch.erf(torch.erfinv(z.clamp(-0.9999, 0.9999)) @ self.turn)
        sizes = torch.tensor((self.shapes, *SIZES[1:]))
        values = ((z[:, :5] + 1) / 2 * sizes).long().clamp(torch.zeros(5, dtype=torch.long), sizes - 1)
        place = torch.zeros(len(z), dtype=torch.long)
        for k, size in enumerate(SIZES):
            place = place * size + values[:, k]
        return to_float(self.sprites.pixels[place])


# ---- the reader ----------------------------------------------------------------------------------------------------


def test_reads_every_factor_of_images_it_never_saw(test_set):
    """An angle counts as read if the picture is the same: squares and ellipses repeat."""
    result = factor_reader().read(test_set.pixels)
    right = (result == canonical(test_set.factors)).double().mean(0)
    assert result.dtype == torch.int64
    assert len(test_set) == 1152
    assert (right >= 0.99).all(), right


def test_logits_are_of_angles_modulo_half_a_turn(test_set):
    reader = factor_reader()
    found = torch.stack([logits.argmax(1) for logits in reader.logits(test_set.pixels).values()], 1)
    assert (found == half_turn(test_set.factors)).double().mean(0).min() >= 0.99
    assert reader.values["angle"] == ["0", "36", "72", "108", "144"]
    assert set(reader.quantities) == set(NAMES) - {"shape"}


def test_a_match_tells_sprites_from_anything_else(test_set):
    reader, x = factor_reader(), to_float(test_set.pixels)
    dim = 0.6 * (x + 1) - 0.9
    result, match = reader.read_and_match(dim)
    assert torch.equal(result, reader.read(dim))
    right = (result == canonical(test_set.factors)).all(1)
    assert right.double().mean() > 0.98
    assert match[right].amin() > 0.999  # the other half turn is drawn from other roundings
    noise = torch.rand(200, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert reader.read_and_match(noise)[1].mean() < 0.2
    assert reader.read_and_match(torch.zeros(3, 1, 32, 32))[1].tolist() == [0, 0, 0]


def test_canonical_names_are_of_pictures(sprites):
    """Images with one canonical name are the same to the eye, those of different angles are not."""
    table = sprites.pixels.double().view(*SIZES, -1)
    for shape in (0, 1):
        turned = (table[shape, :, :5] - table[shape, :, 5:]).abs().amax()
        assert turned <= 2  # of 255: the rounding of sines
        for a in range(5):
            for b in range(a):
                assert (table[shape, :, a] - table[shape, :, b]).abs().amax(-1).amin() > 20
    assert (table[2, :, :5] - table[2, :, 5:]).abs().amax(-1).amin() > 20
    names = canonical(sprites.factors)
    assert len(names.unique(dim=0)) == (5 + 5 + 10) * 6 * 64
    assert len(half_turn(sprites.factors).unique(dim=0)) == 3 * 5 * 6 * 64


def test_colour_size_and_batch_do_not_matter(test_set):
    reader = factor_reader()
    x = to_float(test_set.pixels[:64])
    result = reader.read(x)
    assert torch.equal(reader.read(x.expand(-1, 3, -1, -1)), result)
    assert torch.equal(reader.read(x, batch=7), result)
    large = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    assert (reader.read(large) == result).double().mean() > 0.97
    assert reader.read(x[:0]).shape == (0, 5)


def test_soft_images_are_read_too(test_set):
    """What comes out of a decoder is blurred and not quite black."""
    x = nn.functional.avg_pool2d(to_float(test_set.pixels) + 1, 3, 1, 1) * 0.8 - 0.95
    right = (factor_reader().read(x) == canonical(test_set.factors)).double().mean(0)
    assert (right >= 0.95).all(), right


def test_what_is_shipped_is_small_and_pinned():
    file = features._WEIGHTS / "sprites-v1.safetensors"
    assert file.stat().st_size < 1_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() == factors._SHA256
    reader = factor_reader()
    assert (reader.key, reader.names, reader.sizes) == ("sprites-v1", NAMES, SIZES)
    assert sum(p.numel() for p in reader._net.parameters()) == reader.about["parameters"] == 159_267
    assert min(reader.about["accuracy_test"].values()) >= 0.99


def test_a_file_that_is_missing_or_another(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_WEIGHTS", tmp_path)
    factors._loaded.cache_clear()
    with pytest.raises(LimnerError, match="cannot be read"):
        factor_reader()
    (tmp_path / "sprites-v1.safetensors").write_bytes(b"other")
    with pytest.raises(LimnerError, match="not the file that limner was released with"):
        factor_reader()
    monkeypatch.undo()
    assert factor_reader().key == "sprites-v1"


def test_images_it_does_not_read():
    with pytest.raises(LimnerError, match="grey or colour images"):
        factor_reader().read(torch.zeros(1, 2, 32, 32))
    with pytest.raises(LimnerError, match=r"must lie in \[-1,1\]"):
        factor_reader().read(torch.full((1, 1, 32, 32), 2.0))


# ---- the scores ----------------------------------------------------------------------------------------------------


def test_a_decoder_with_a_number_for_each_factor_and_one_that_mixes_them(sprites):
    result = read_disentanglement(Renders(sprites), n=3000)
    assert result.how == "sprites-v1"
    assert result.names == NAMES
    assert result.left_out == ()
    assert result.match > 0.99
    assert result.scores.codes == 7
    assert result.scores.mig > 0.85  # the edges of 20 bins are not those of 3, 6 or 8 values
    assert result.scores.dci.disentanglement > 0.9
    assert result.scores.dci.completeness > 0.9
    assert result.scores.factor_vae.value > 0.95
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)))[0]
    mixed = read_disentanglement(Renders(sprites, turn=turn), n=3000)
    assert mixed.scores.mig < 0.15
    assert mixed.scores.dci.disentanglement < 0.5


def test_a_factor_that_never_changes_is_left_out(sprites):
    result = read_disentanglement(Renders(sprites, shapes=1), n=600)
    assert result.left_out == ("shape",)
    assert result.names == NAMES[1:]
    assert result.scores.factors == 4

    class Constant(Renders):
        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return to_float(self.sprites.pixels[:1]).expand(len(z), -1, -1, -1)

    with pytest.raises(LimnerError, match="0 of 5 factors change"):
        read_disentanglement(Constant(sprites), n=200)


class Knows(nn.Module):
    """An encoder that finds an image in a table; codes are the factors that a picture has."""

    def __init__(self, sprites: Pixels) -> None:
        super().__init__()
        self.where = {image.numpy().tobytes(): i for i, image in enumerate(sprites.pixels)}
        self.factors = half_turn(sprites.factors)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        grey = ((x + 1) * 127.5).round().to(torch.uint8)
        return self.factors[[self.where[image.numpy().tobytes()] for image in grey]].float()


def test_an_encoder_that_knows_the_factors(sprites):
    result = encoded_disentanglement(Knows(sprites), sprites, n=3000)
    assert result.how == "encoder"
    assert result.match is None
    assert result.scores.n == 3000
    assert result.scores.mig > 0.98
    assert result.scores.dci.disentanglement > 0.98
    assert result.scores.factor_vae.value == 1
    with pytest.raises(LimnerError, match="factors of digits are not known"):
        encoded_disentanglement(Knows(sprites), data.load("digits"))
