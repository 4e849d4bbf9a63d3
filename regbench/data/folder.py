"""Any tree of image files, one directory per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field

from regbench.data.base import DataPath, Dataset, DatasetOptions, Images, ImageShape, Sizes, in_words
from regbench.data.decoded import DecodedCache
from regbench.data.split import hashed_test
from regbench.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Modes of more than eight bits; PIL's conversion would clip them without a word.
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
CHUNK = 256


class FolderOptions(DatasetOptions):
    """Options of the data set ``folder``."""

    path: DataPath
    """Top of the tree; a relative path starts at the data directory."""
    side: int = Field(ge=4, le=1024)
    """Height and width that every image is brought to."""
    channels: Literal[1, 3] = 3
    """1: converted to grey; 3: to RGB."""
    layout: Literal["split", "single"] = "split"
    """``split``: train/<class>/* and test/<class>/*; ``single``: <class>/*, a fixed hashed 20% for test."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file of the tree."""

    path: Path
    key: str
    """Path below the top, with forward slashes."""
    label: str
    """Name of its class directory; empty for an image that is in none."""
    size: int
    mtime_ns: int
    ctime_ns: int
    """Nobody can set it, as a copy's time of change can be set to its original's."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All image files, in the order of their keys."""

    train: list[ImageFile]
    test: list[ImageFile]
    classes: tuple[str, ...]


class Folder(Dataset):
    """A tree of image files. Each is turned upright (EXIF), converted, cut to its central square and resized.

    Hidden files, and files that do not end like images, are passed over; symbolic links are followed.
    """

    name = "folder"
    Options = FolderOptions

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.options.channels, self.options.side)

    def sizes(self, root: Path) -> Sizes:
        listing = self._list(root)
        return Sizes(len(listing.train), len(listing.test))

    def files(self, root: Path) -> tuple[Path, ...]:
        return (root / self.options.path.expanduser(),)

    def fingerprint(self, root: Path) -> str:
        listing = self._list(root)
        cache = self._cache(root, listing)
        return cache.fingerprint() or cache.store(self._decoded(listing))

    def load(self, root: Path) -> Images:
        listing = self._list(root)
        cache = self._cache(root, listing)
        images = cache.images()
        if images is None:
            images = self._decoded(listing)
            cache.store(images)
        return images

    def check(self, root: Path) -> list[str]:
        """Decodes every file, unless none has changed since all were decoded."""
        try:
            listing = self._list(root)
        except DataError as error:
            return [in_words(error)]
        cache = self._cache(root, listing)
        if cache.fingerprint() is not None:
            return []
        images, problems = self._decode(listing)
        if not problems:
            cache.store(images)
        return problems

    def _cache(self, root: Path, listing: Listing) -> DecodedCache:
        (top,) = self.files(root)
        state = [
            [split, file.key, file.size, file.mtime_ns, file.ctime_ns]
            for split, files in (("train", listing.train), ("test", listing.test))
            for file in files
        ]
        return DecodedCache(top, self.options.model_dump(mode="json", exclude={"path"}), state)

    def _list(self, root: Path) -> Listing:
        (top,) = self.files(root)
        if not _is_directory(top):
            raise DataError(
                f"{top} is not a directory",
                hint="path is taken from the data directory unless it is absolute",
            )
        if self.options.layout == "split":
            train, test = _images_below(top / "train"), _images_below(top / "test")
            unknown = sorted({file.label for file in test} - {file.label for file in train})
            if unknown:
                raise DataError(
                    f"{top / 'test'} has classes that {top / 'train'} has not: {', '.join(unknown)}"
                )
        else:
            files = _images_below(top)
            mask = hashed_test([file.key for file in files])
            train = [file for file, testing in zip(files, mask, strict=True) if not testing]
            test = [file for file, testing in zip(files, mask, strict=True) if testing]
        return Listing(train, test, _classes(top, train, test))

    def _decoded(self, listing: Listing) -> Images:
        images, problems = self._decode(listing)
        if problems:
            shown = problems[:10]
            left = f"\n... and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
            raise DataError("\n".join(shown) + left, hint="replace these files, or take them out of the tree")
        return images

    def _decode(self, listing: Listing) -> tuple[Images, list[str]]:
        """The images, and in words those that could not be read (their pixels are undefined)."""
        train, problems = self._decode_files(listing.train)
        test, more = self._decode_files(listing.test)
        number = {name: label for label, name in enumerate(listing.classes)}
        train_labels, test_labels = (
            np.array([number.get(file.label, -1) for file in files], dtype=np.int64)
            for files in (listing.train, listing.test)
        )
        return Images(train, train_labels, test, test_labels, listing.classes), problems + more

    def _decode_files(self, files: Sequence[ImageFile]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images as (N, C, H, W), decoded in threads (PIL releases the GIL), and what could not be read."""
        channels, side = self.options.channels, self.options.side
        images = np.empty((len(files), channels, side, side), dtype=np.uint8)

        def decode_chunk(start: int) -> list[str]:
            problems = []
            for index in range(start, min(start + CHUNK, len(files))):
                try:
                    images[index] = _decode_file(files[index].path, channels, side)
                except DataError as error:
                    problems.append(str(error))
            return problems

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            chunks = list(pool.map(decode_chunk, range(0, len(files), CHUNK)))
        return images, [problem for chunk in chunks for problem in chunk]


def _images_below(top: Path) -> list[ImageFile]:
    if not top.is_dir():
        raise DataError(
            f"{top} is missing; the layout 'split' needs train/<class>/* and test/<class>/*",
            hint='for one tree of class directories say layout = "single"',
        )
    found = sorted(_walk(top, ""), key=lambda file: file.key)
    if not found:
        raise DataError(f"{top} has no images in it", hint=f"known endings: {' '.join(sorted(SUFFIXES))}")
    return found


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _walk(
    directory: Path, prefix: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[ImageFile]:
    """``above``: what the directories that this one lies in are to the file system."""
    try:
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above and here[1]:
            raise DataError(
                f"{directory} is a symbolic link to a directory that it lies in: its images would have no end",
                hint="take the link out of the tree",
            )
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                key = f"{prefix}{entry.name}"
                if entry.is_dir():
                    yield from _walk(Path(entry.path), f"{key}/", above | {here})
                elif Path(entry.name).suffix.lower() in SUFFIXES:
                    status = entry.stat()
                    label = key.partition("/")[0] if prefix else ""
                    times = (status.st_mtime_ns, status.st_ctime_ns)
                    yield ImageFile(Path(entry.path), key, label, status.st_size, *times)
    except OSError as error:
        raise DataError(f"{error.filename or directory} cannot be read: {error.strerror}") from error


def _classes(top: Path, train: Sequence[ImageFile], test: Sequence[ImageFile]) -> tuple[str, ...]:
    """Names of the class directories; none where no image is in one."""
    names = sorted({file.label for file in [*train, *test]} - {""})
    stray = next((file for file in [*train, *test] if not file.label), None)
    if names and stray is not None:
        raise DataError(
            f"{stray.path} is in no class directory, but other images are",
            hint="move it into one; a tree without any class directory is taken as unlabelled",
        )
    return tuple(names)


def _decode_file(path: Path, channels: int, side: int) -> NDArray[np.uint8]:
    """One image as (C, H, W)."""
    try:
        with Image.open(path) as image:
            if image.mode in DEEP_MODES:
                raise DataError(f"{path} has more than 8 bits per value (mode {image.mode}); store it with 8")
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            if upright.size != (side, side):
                square = min(upright.size)
                left, top = ((length - square) // 2 for length in upright.size)
                central = upright.crop((left, top, left + square, top + square))
                upright = central.resize((side, side), Image.Resampling.BILINEAR)
            pixels = np.asarray(upright)
    except DataError:
        raise
    except Exception as error:  # PIL's plugins raise nearly anything on a damaged file
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
