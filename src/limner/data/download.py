"""Named sets on public hosts: a local copy first, then a download whose SHA-256 is checked.

Where a local copy may lie: ``$LIMNER_DATA/NAME/FILE`` (as published, or unpacked without ``.gz``),
``$LIMNER_DATA/NAME.npz``, or where a Linux distribution installs it. Downloads are kept in the user's cache,
or under ``$LIMNER_CACHE``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from limner.core.errors import LimnerError


@dataclass(frozen=True)
class Remote:
    """The files of a set: their SHA-256, where they are published, and where a distribution puts them."""

    name: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    installed: tuple[str, ...] = field(default=())


def _idx(train_images: str, train_labels: str, test_images: str, test_labels: str) -> dict[str, str]:
    """The four files that MNIST and its look-alikes are published as."""
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


REMOTES = {
    r.name: r
    for r in (
        Remote(
            "mnist",
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            _idx(
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        Remote(
            "fashion-mnist",
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            _idx(
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
            # Debian's package dataset-fashion-mnist: the same numbers, compressed anew, so the sums differ
            installed=("/usr/share/datasets/fashion-mnist",),
        ),
        Remote(
            "kmnist",
            ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            _idx(
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
        ),
        Remote(
            "emnist",
            ("https://biometrics.nist.gov/cs_links/EMNIST/",),
            {"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
        ),
        Remote(
            "cifar10",
            ("https://www.cs.toronto.edu/~kriz/",),
            {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        ),
    )
}


def local_npz(name: str) -> Path | None:
    """``$LIMNER_DATA/NAME.npz``, where there is one."""
    folder = _own_folder()
    path = folder / f"{name}.npz" if folder else None
    return path if path and path.is_file() else None


def local(remote: Remote, file: str) -> Path | None:
    """A copy of one file on this machine that needs no download, as published or unpacked."""
    return next((p for p in _places(remote, file) if p.is_file()), None)


def fetch(remote: Remote, file: str) -> Path:
    """One file of a set: a local copy, else the download with its SHA-256 checked.

    Raises:
        LimnerError: it cannot be had; the message says what to fetch, its checksum and where to put it.
    """
    return local(remote, file) or _download(remote, file)


def _own_folder() -> Path | None:
    folder = os.environ.get("LIMNER_DATA")
    return Path(folder).expanduser() if folder else None


def _places(remote: Remote, file: str) -> Iterator[Path]:
    own = _own_folder()
    plain = file.removesuffix(".gz")
    # some unpackers write train-images.idx3-ubyte
    spellings = (file, plain, plain.replace("-idx", ".idx"))
    for folder in ([own / remote.name] if own else []) + [Path(p) for p in remote.installed]:
        yield from (folder / s for s in spellings)


def _download(remote: Remote, file: str) -> Path:
    try:
        import pooch
        import requests
    except ImportError:
        raise LimnerError("downloads need pooch; install it with: pip install pooch") from None
    cache = Path(os.environ.get("LIMNER_CACHE") or pooch.os_cache("limner")).expanduser() / remote.name
    sha256, reason = remote.sha256[file], ""
    for mirror in remote.mirrors:
        try:
            client = pooch.HTTPDownloader(timeout=30)
            return Path(pooch.retrieve(mirror + file, f"sha256:{sha256}", file, cache, downloader=client))
        except requests.RequestException as error:
            reason = f"no connection ({type(error).__name__})"
        except ValueError:  # pooch's word for a checksum that does not match
            reason = "what arrived has another checksum"
        except OSError as error:
            reason = error.strerror or type(error).__name__
    raise LimnerError(
        f"{remote.name}: cannot download {remote.mirrors[0]}{file}: {reason}; fetch it elsewhere "
        f"(sha256 {sha256}), set LIMNER_DATA to a folder and put it there as {remote.name}/{file}"
    )
