"""Published data sets: files with known checksums, verified by us before anything reads them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from regbench.data.base import Dataset, Images, ImageShape, Sizes
from regbench.data.checksums import fingerprint_from, md5_of, md5_unpacked
from regbench.errors import DataError


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a published data set."""

    path: str
    """Below the data directory, with forward slashes."""
    md5: str
    """Published MD5 of the file, or, where ``packed``, of the gzip archive beside it."""
    size: int | None = None
    """Bytes, where the format fixes them."""
    packed: bool = False
    """Only the archive ``<path>.gz`` has a published checksum; the file must equal what it unpacks to."""

    def problem(self, root: Path) -> str | None:
        """What is wrong with this file below ``root``: which file, what was expected, what was found."""
        path = root / self.path
        if not path.is_file():
            archive = _archive(path)
            return f"{path} is missing" + (
                f" ({archive.name} is there and will be unpacked)" if archive.is_file() else ""
            )
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            wrong = "truncated" if found < self.size else "too long"
            return f"{path} is {wrong}: expected {self.size:,} bytes, found {found:,}"
        try:
            return self._altered(path, found)
        except OSError as error:
            return f"{path} cannot be read: {error}"

    def _altered(self, path: Path, size: int) -> str | None:
        expected = self.md5
        if self.packed:
            archive = _archive(path)
            if not archive.is_file():
                return (
                    f"{path} cannot be verified: only {archive.name} has a published MD5, and it is missing"
                )
            found = md5_of(archive)
            if found != self.md5:
                return f"{archive} is altered: expected MD5 {self.md5}, found {found}"
            expected = md5_unpacked(archive)
        found = md5_of(path)
        if found == expected:
            return None
        return f"{path} is altered: expected MD5 {expected}, found {found} ({size:,} bytes)"


@dataclass(frozen=True, slots=True)
class Download:
    """One download and what it provides."""

    urls: tuple[str, ...]
    """The same file at several places, tried in this order."""
    folder: str
    """Where it is put, below the data directory."""
    filename: str
    md5: str
    unpack: bool
    provides: tuple[PublishedFile, ...]


class Published(Dataset):
    """Base of data sets whose files have published checksums. All but the images is known beforehand."""

    published: ClassVar[tuple[PublishedFile, ...]]
    published_shape: ClassVar[ImageShape]
    published_sizes: ClassVar[Sizes]

    @abstractmethod
    def read(self, root: Path) -> Images:
        """Decode the files below ``root``, which have just been verified."""

    @abstractmethod
    def downloads(self) -> Sequence[Download]:
        """Where the files come from."""

    @property
    def shape(self) -> ImageShape:
        return self.published_shape

    def sizes(self, root: Path) -> Sizes:
        return self.published_sizes

    def fingerprint(self, root: Path) -> str:
        return fingerprint_from(self.name, {file.path: file.md5 for file in self.published})

    def files(self, root: Path) -> tuple[Path, ...]:
        return tuple(root / file.path for file in self.published)

    def check(self, root: Path) -> list[str]:
        if not any(path.exists() for path in self.files(root)):
            names = ", ".join(file.path for file in self.published)
            return [f"{self.name} is missing: none of its files is below {root} ({names})"]
        return [problem for file in self.published if (problem := file.problem(root)) is not None]

    def load(self, root: Path) -> Images:
        self._require(root)
        return self.read(root)

    def fetch(self, root: Path) -> None:
        wanted = [d for d in self.downloads() if any(file.problem(root) for file in d.provides)]
        failed = {download: errors for download in wanted if (errors := _fetch(download, root))}
        if failed:
            tried = "\n".join(f"  {error}" for errors in failed.values() for error in errors)
            places = "\n".join(f"  {root / d.folder / d.filename}  (MD5 {d.md5})" for d in failed)
            raise DataError(
                f"{self.name} cannot be downloaded; tried\n{tried}",
                hint=f"place by hand\n{places}\nand run  {self.mend(root)}",
            )
        self._require(root)

    def _require(self, root: Path) -> None:
        problems = self.check(root)
        if problems:
            raise DataError("\n".join(problems), hint=self.mend(root))


def _fetch(download: Download, root: Path) -> list[str]:
    """Try each address; the errors of all of them, or nothing once one has worked."""
    from torchvision.datasets import utils

    folder = root / download.folder
    errors = []
    for url in download.urls:
        try:
            if download.unpack:
                utils.download_and_extract_archive(url, folder, filename=download.filename, md5=download.md5)
            else:
                utils.download_url(url, folder, download.filename, download.md5)
        except Exception as error:  # the network, the server, the disk or the archive: all end here
            errors.append(f"{url}: {type(error).__name__}: {error}")
        else:
            return []
    return errors


def _archive(path: Path) -> Path:
    return path.with_name(path.name + ".gz")
