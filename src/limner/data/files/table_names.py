"""The names of tables that say something of the images beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

METADATA = ("metadata.jsonl", "metadata.csv")
"""In the convention of Hugging Face's imagefolder."""

CELEBA = ("list_attr_celeba.txt", "list_attr_celeba.csv", "celebamask-hq-attribute-anno.txt")
"""Of CelebA and CelebA-HQ."""

TABLES = frozenset((*METADATA, *CELEBA))
"""All, in small letters."""


def by_suffix(tables: Iterable[str]) -> Counter[str]:
    """The number of tables by suffix, for sets that do not use them.

    >>> by_suffix(["a/metadata.csv"])
    Counter({'.csv': 1})
    """
    return Counter(table[table.rfind(".") :].lower() for table in tables)
