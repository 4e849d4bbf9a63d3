"""Small files in the true formats of the published sets, with checksums to match."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from regbench.data import torchvision_sets as sets
from regbench.data.base import Images, ImageShape, Sizes
from regbench.data.published import Published, PublishedFile

SIZES = Sizes(train=20, test=10)


@dataclass(frozen=True)
class Small:
    """A published set in small, laid out below ``root``."""

    dataset: Published
    images: Images
    """What loading it must give."""
    root: Path
    archives: dict[str, bytes]
    """What a server would serve, by file name."""

    @property
    def paths(self) -> list[Path]:
        return [self.root / file.path for file in self.dataset.published]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def random_images(shape: ImageShape, classes: tuple[str, ...], seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    image = (shape.channels, shape.side, shape.side)
    return Images(
        rng.integers(0, 256, (SIZES.train, *image), dtype=np.uint8),
        rng.integers(0, len(classes), SIZES.train),
        rng.integers(0, 256, (SIZES.test, *image), dtype=np.uint8),
        rng.integers(0, len(classes), SIZES.test),
        classes,
    )


def idx(cls: type[Published]) -> Callable[[Path, pytest.MonkeyPatch], Small]:
    """MNIST and its like: big-endian headers, one file for images and one for labels."""

    def lay_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
        dataset: Any = cls()
        images = random_images(dataset.shape, dataset.classes)
        contents = [
            struct.pack(">4i", 2051, SIZES.train, 28, 28) + images.train.tobytes(),
            struct.pack(">2i", 2049, SIZES.train) + images.train_labels.astype(np.uint8).tobytes(),
            struct.pack(">4i", 2051, SIZES.test, 28, 28) + images.test.tobytes(),
            struct.pack(">2i", 2049, SIZES.test) + images.test_labels.astype(np.uint8).tobytes(),
        ]
        packed = any(file.packed for file in cls.published)
        archives = {}
        for file, content in zip(cls.published, contents, strict=True):
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            archives[f"{path.name}.gz"] = gzip.compress(content, mtime=0)
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(archives[f"{path.name}.gz"])
        known = list(archives.values()) if packed else contents
        source = getattr(torchvision.datasets, dataset.torchvision_name)
        published = sets.idx_files(dataset.torchvision_name, [md5(c) for c in known], SIZES, 28, packed)
        monkeypatch.setattr(cls, "published", published)
        monkeypatch.setattr(cls, "published_sizes", SIZES)
        monkeypatch.setattr(source, "resources", [(name, md5(content)) for name, content in archives.items()])
        return Small(dataset, images, root, archives)

    return lay_out


def cifar(
    cls: type[Published], label_key: str, names_key: str
) -> Callable[[Path, pytest.MonkeyPatch], Small]:
    """CIFAR: pickles of rows in channel order, and one with the class names."""

    def lay_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
        dataset: Any = cls()
        images = random_images(dataset.shape, tuple(f"class {i}" for i in range(10)))
        names = [Path(file.path).name for file in cls.published]
        contents: dict[str, bytes] = {}
        train_names = names[:-2]
        parts = np.array_split(np.arange(SIZES.train), len(train_names))
        for name, rows in zip(train_names, parts, strict=True):
            contents[name] = cifar_batch(images.train[rows], images.train_labels[rows], label_key)
        contents[names[-2]] = cifar_batch(images.test, images.test_labels, label_key)
        contents[names[-1]] = pickle.dumps({names_key: list(images.classes)})
        folder = Path(cls.published[0].path).parent.as_posix()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in contents.items():
                path = root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                tar.add(path, f"{folder}/{name}")
        archive = buffer.getvalue()
        source = getattr(torchvision.datasets, dataset.torchvision_name)
        published = tuple(
            PublishedFile(f"{folder}/{name}", md5(content)) for name, content in contents.items()
        )
        sums = [[name, md5(content)] for name, content in contents.items()]
        monkeypatch.setattr(cls, "published", published)
        monkeypatch.setattr(cls, "published_sizes", SIZES)
        monkeypatch.setattr(source, "train_list", sums[:-2])
        monkeypatch.setattr(source, "test_list", sums[-2:-1])
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": sums[-1][1]})
        monkeypatch.setattr(source, "tgz_md5", md5(archive))
        return Small(dataset, images, root, {source.filename: archive})

    return lay_out


def cifar_batch(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], label_key: str) -> bytes:
    return pickle.dumps({"data": images.reshape(len(images), -1), label_key: labels.tolist()})


def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """SVHN: .mat files with images last, and the digit 0 labelled 10."""
    images = random_images(ImageShape(3, 32), sets.DIGITS)
    files, archives = [], {}
    splits = dict(torchvision.datasets.SVHN.split_list)
    for split, pixels, labels in (
        ("train", images.train, images.train_labels),
        ("test", images.test, images.test_labels),
    ):
        name = f"{split}_32x32.mat"
        root.mkdir(parents=True, exist_ok=True)
        marked = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(root / name, {"X": pixels.transpose(2, 3, 1, 0), "y": marked})
        content = (root / name).read_bytes()
        archives[name] = content
        files.append(PublishedFile(name, md5(content)))
        splits[split] = [splits[split][0], name, md5(content)]
    monkeypatch.setattr(sets.SVHN, "published", tuple(files))
    monkeypatch.setattr(sets.SVHN, "published_sizes", SIZES)
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", splits)
    return Small(sets.SVHN(), images, root, archives)


LAY_OUT: dict[str, Callable[[Path, pytest.MonkeyPatch], Small]] = {
    "mnist": idx(sets.MNIST),
    "fashion-mnist": idx(sets.FashionMNIST),
    "kmnist": idx(sets.KMNIST),
    "cifar10": cifar(sets.CIFAR10, "labels", "label_names"),
    "cifar100": cifar(sets.CIFAR100, "fine_labels", "fine_label_names"),
    "svhn": svhn,
}
