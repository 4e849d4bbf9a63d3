"""The data sets that torchvision knows: its lay-out, its readers and its downloads, with checks of our own.

torchvision reads an MNIST file with a flipped byte without a word, so every file is verified first. The MD5s
of CIFAR, SVHN and of all archives are torchvision's. Those of the unpacked MNIST and Fashion-MNIST files are
widely published; for Kuzushiji-MNIST only the archives' are: there the archives must stay beside the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from regbench.data.base import Images, ImageShape, Sizes
from regbench.data.published import Download, Published, PublishedFile

DIGITS = tuple("0123456789")
_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_files(
    folder: str, md5s: Sequence[str], sizes: Sizes, side: int, packed: bool = False
) -> tuple[PublishedFile, ...]:
    """The four files of an MNIST-like set: a header of 16 (images) or 8 (labels) bytes, then values."""
    lengths = (16 + sizes.train * side**2, 8 + sizes.train, 16 + sizes.test * side**2, 8 + sizes.test)
    return tuple(
        PublishedFile(f"{folder}/raw/{name}", md5, length, packed)
        for name, md5, length in zip(_IDX, md5s, lengths, strict=True)
    )


def _torchvision(name: str) -> Any:
    # Imported late: torchvision brings torch, and planning a suite needs neither.
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


class _IdxSet(Published):
    """MNIST and what was made in its image: four files in the idx format below ``<folder>/raw``."""

    published_shape = ImageShape(channels=1, side=28)
    published_sizes = Sizes(train=60_000, test=10_000)
    torchvision_name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    def read(self, root: Path) -> Images:
        # Not the data set class: it would prefer files in processed/ that an old torchvision left.
        from torchvision.datasets.mnist import read_image_file, read_label_file

        train, train_labels, test, test_labels = (str(path) for path in self.files(root))
        return Images(
            read_image_file(train).numpy()[:, None],
            read_label_file(train_labels).numpy(),
            read_image_file(test).numpy()[:, None],
            read_label_file(test_labels).numpy(),
            self.classes,
        )

    def downloads(self) -> Sequence[Download]:
        source = _torchvision(self.torchvision_name)
        files = {Path(file.path).name: file for file in self.published}
        return [
            Download(
                urls=tuple(f"{mirror}{filename}" for mirror in source.mirrors),
                folder=f"{self.torchvision_name}/raw",
                filename=filename,
                md5=md5,
                unpack=True,
                provides=(files[filename.removesuffix(".gz")],),
            )
            for filename, md5 in source.resources
        ]


class MNIST(_IdxSet):
    """Handwritten digits, 28x28 grey: 60,000 for training and 10,000 for test (LeCun et al. 1998)."""

    name = "mnist"
    torchvision_name = "MNIST"
    classes = DIGITS
    published = idx_files(
        "MNIST",
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        _IdxSet.published_sizes,
        side=28,
    )


class FashionMNIST(_IdxSet):
    """Articles of clothing, 28x28 grey: 60,000 for training and 10,000 for test (Xiao et al. 2017)."""

    name = "fashion-mnist"
    torchvision_name = "FashionMNIST"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    published = idx_files(
        "FashionMNIST",
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        _IdxSet.published_sizes,
        side=28,
    )


class KMNIST(_IdxSet):
    """Cursive Japanese letters, 28x28 grey: 60,000 for training, 10,000 for test (Clanuwat et al. 2018)."""

    name = "kmnist"
    torchvision_name = "KMNIST"
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    published = idx_files(
        "KMNIST",
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        _IdxSet.published_sizes,
        side=28,
        packed=True,
    )


class _CIFAR(Published):
    published_shape = ImageShape(channels=3, side=32)
    published_sizes = Sizes(train=50_000, test=10_000)
    torchvision_name: ClassVar[str]

    def read(self, root: Path) -> Images:
        source = _torchvision(self.torchvision_name)
        train, test = source(str(root), train=True), source(str(root), train=False)
        return Images(
            _channels_first(train.data),
            np.asarray(train.targets, dtype=np.int64),
            _channels_first(test.data),
            np.asarray(test.targets, dtype=np.int64),
            tuple(train.classes),
        )

    def downloads(self) -> Sequence[Download]:
        source = _torchvision(self.torchvision_name)
        return [Download((source.url,), "", source.filename, source.tgz_md5, True, self.published)]


class CIFAR10(_CIFAR):
    """Photographs in 10 classes, 32x32 colour: 50,000 for training, 10,000 for test (Krizhevsky 2009)."""

    name = "cifar10"
    torchvision_name = "CIFAR10"
    published = (
        PublishedFile("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
        PublishedFile("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        PublishedFile("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        PublishedFile("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
        PublishedFile("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        PublishedFile("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
        PublishedFile("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    )


class CIFAR100(_CIFAR):
    """Photographs in 100 classes, 32x32 colour: 50,000 for training, 10,000 for test (Krizhevsky 2009)."""

    name = "cifar100"
    torchvision_name = "CIFAR100"
    published = (
        PublishedFile("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
        PublishedFile("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        PublishedFile("cifar-100-python/meta", "7973b15100ade9c7d40fb424638fde48"),
    )


class SVHN(Published):
    """House numbers, 32x32 colour: 73,257 for training, 26,032 for test, no "extra" (Netzer et al. 2011)."""

    name = "svhn"
    published_shape = ImageShape(channels=3, side=32)
    published_sizes = Sizes(train=73_257, test=26_032)
    published = (
        PublishedFile("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        PublishedFile("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    )

    def read(self, root: Path) -> Images:
        source = _torchvision("SVHN")
        train, test = source(str(root), split="train"), source(str(root), split="test")
        return Images(
            np.ascontiguousarray(train.data),
            train.labels,
            np.ascontiguousarray(test.data),
            test.labels,
            DIGITS,
        )

    def downloads(self) -> Sequence[Download]:
        splits = _torchvision("SVHN").split_list
        return [
            Download((url,), "", filename, md5, False, (file,))
            for file, (url, filename, md5) in zip(
                self.published, (splits["train"], splits["test"]), strict=True
            )
        ]


def _channels_first(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2))
