"""Images from a NumPy archive."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from pydantic import Field

from regbench.data.base import DataPath, Dataset, DatasetOptions, Images, ImageShape, Sizes
from regbench.data.facts import facts_of
from regbench.data.split import hashed_test
from regbench.errors import DataError

NAMES = ("train", "train_labels", "test", "test_labels", "classes")

MOST_CLASSES = 65_536

Arrays = Mapping[str, NDArray[Any]]


class NpzOptions(DatasetOptions):
    """Options of the data set ``npz``."""

    path: DataPath
    """The .npz file; a relative path starts at the data directory."""
    side: int = Field(ge=4, le=1024)
    """Height and width of the images in the file."""
    channels: Literal[1, 3] = 1
    """1 for grey images, 3 for RGB."""


class Npz(Dataset):
    """A NumPy archive with arrays ``train``, ``train_labels``, ``test``, ``test_labels`` and ``classes``.

    Only ``train`` is required. Images are uint8 of shape (N, side, side) or (N, channels, side, side), labels
    integers from 0, ``classes`` their names. Without ``test``, a fixed hashed 20% of ``train`` is for test.
    """

    name = "npz"
    Options = NpzOptions

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.options.channels, self.options.side)

    def sizes(self, root: Path) -> Sizes:
        return self._facts(root)[0]

    def fingerprint(self, root: Path) -> str:
        return self._facts(root)[1]

    def _facts(self, root: Path) -> tuple[Sizes, str]:
        (path,) = self.files(root)
        return facts_of(path, self.options.model_dump(mode="json", exclude={"path"}), lambda: self.load(root))

    def files(self, root: Path) -> tuple[Path, ...]:
        return (root / self.options.path.expanduser(),)

    def load(self, root: Path) -> Images:
        (path,) = self.files(root)
        arrays = _read(path)
        train, test = self._pixels(path, "train", arrays["train"]), None
        labels = _labels(path, arrays, "train", len(train))
        classes = _classes(path, arrays)
        if "test" in arrays:
            test = self._pixels(path, "test", arrays["test"])
            return Images(train, labels, test, _labels(path, arrays, "test", len(test)), classes)
        mask = hashed_test([str(index) for index in range(len(train))])
        return Images(train[~mask], labels[~mask], train[mask], labels[mask], classes)

    def _pixels(self, path: Path, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
        """The images as (N, C, H, W)."""
        if array.dtype != np.uint8:
            raise DataError(
                f"{path}: {name} has type {array.dtype}; expected uint8 from 0 to 255",
                hint="store images in [0, 1] as (255 * images).round().astype('uint8')",
            )
        channels, side = self.options.channels, self.options.side
        if array.ndim == 3 and channels == 1:
            array = array[:, None]
        if array.ndim != 4 or array.shape[1:] != (channels, side, side):
            last = array.ndim == 4 and array.shape[1:] == (side, side, channels)
            raise DataError(
                f"{path}: {name} has shape {array.shape}; the options say (N, {channels}, {side}, {side})",
                hint="store channels first: images.transpose(0, 3, 1, 2)"
                if last
                else "mend side or channels",
            )
        return np.ascontiguousarray(array)


def _read(path: Path) -> Arrays:
    try:
        if not path.is_file():
            raise DataError(
                f"{path} is missing", hint="path is taken from the data directory unless it is absolute"
            )
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it holds one array without a name")
            _check_size(path, archive)
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as a NumPy archive without pickled objects: {error}",
            hint="write it with numpy.savez, from arrays of numbers and strings",
        ) from error
    unknown = sorted(set(arrays) - set(NAMES))
    if "train" not in arrays or unknown:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} holds {found}; expected train and at most {', '.join(NAMES[1:])}")
    if "test" not in arrays and "test_labels" in arrays:
        raise DataError(f"{path} holds test_labels without test")
    if "test" in arrays and ("train_labels" in arrays) != ("test_labels" in arrays):
        raise DataError(
            f"{path} has labels for one of its splits only; expected train_labels and test_labels"
        )
    return arrays


def _check_size(path: Path, archive: NpzFile) -> None:
    """What is packed small may be large, and a header may say anything: nothing is unpacked before it is known to fit.

    Raises ``DataError``; ``ValueError`` where a header says another size than the archive.
    """
    total = 0
    assert archive.zip is not None
    for member in archive.zip.infolist():
        total += member.file_size
        with archive.zip.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds pickled objects")
            if math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                raise ValueError(f"{member.filename} says shape {shape}, which is not what it holds")
    memory = psutil.virtual_memory().total
    if total > memory:
        found = (
            f"{path} holds {total / 1e9:,.0f} GB of arrays; this machine has {memory / 1e9:,.0f} GB of memory"
        )
        raise DataError(found, hint="take fewer or smaller images, or a machine with more memory")


def _labels(path: Path, arrays: Arrays, split: str, count: int) -> NDArray[np.int64]:
    name = f"{split}_labels"
    if name not in arrays:
        return np.full(count, -1, dtype=np.int64)
    labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"{path}: {name} is {labels.dtype} of shape {labels.shape}; expected integers, ({count},)"
        )
    if labels.size and labels.min() < 0:
        raise DataError(f"{path}: {name} has negative labels; expected 0 and up")
    if labels.size and labels.max() >= MOST_CLASSES:
        raise DataError(
            f"{path}: {name} has the label {labels.max()}; expected at most {MOST_CLASSES - 1:,}",
            hint="number the classes from 0, without gaps",
        )
    return labels.astype(np.int64)


def _classes(path: Path, arrays: Arrays) -> tuple[str, ...]:
    labels = [arrays[name] for name in ("train_labels", "test_labels") if name in arrays]
    needed = 1 + max((int(part.max()) for part in labels if part.size), default=-1)
    if "classes" not in arrays:
        return tuple(str(label) for label in range(needed))
    names = arrays["classes"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) < needed or not labels:
        raise DataError(
            f"{path}: classes is {names.dtype} of shape {names.shape}; expected one string for each of the "
            f"{needed} classes that train_labels and test_labels name"
        )
    return tuple(str(name) for name in names)
