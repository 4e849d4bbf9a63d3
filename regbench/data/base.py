"""What a data set is. No torch here: images are uint8 arrays until the harness puts them on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict

from regbench.data.location import fetch_command, usable
from regbench.errors import DataError

DataPath = Annotated[Path, AfterValidator(usable)]
"""A file or directory that holds data; a relative path starts at the data directory."""


class DatasetOptions(BaseModel):
    """Base of a data set's options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Size of one image; images are square."""

    channels: int
    side: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of images in the official splits, before anything is held out."""

    train: int
    test: int


@dataclass(frozen=True, slots=True)
class Images:
    """A data set in memory. Images are uint8 of shape (N, C, H, W), labels int64 of shape (N,).

    A set without labels has -1 for each and no classes.
    """

    train: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


class Dataset(ABC):
    """A data set that suites can name. Instances are cheap: nothing is read before a method asks for it."""

    name: ClassVar[str]
    Options: ClassVar[type[DatasetOptions]] = DatasetOptions

    options: Any

    def __init__(self, options: DatasetOptions | None = None) -> None:
        self.options = self.Options() if options is None else options

    @property
    @abstractmethod
    def shape(self) -> ImageShape:
        """Known without the data, so that a suite plans anywhere."""

    @abstractmethod
    def sizes(self, root: Path) -> Sizes:
        """Split sizes; published sets know theirs without the data, others look below ``root``."""

    @abstractmethod
    def fingerprint(self, root: Path) -> str:
        """What the results depend on: published checksums where there are some, else a hash of the images."""

    @abstractmethod
    def load(self, root: Path) -> Images:
        """Verify and decode. Raises ``DataError`` with the file, found and expected, and the mend."""

    def files(self, root: Path) -> tuple[Path, ...]:
        """Files or directories that must be there before ``load``; empty: nothing lies below ``root``."""
        return ()

    def check(self, root: Path) -> list[str]:
        """Every problem with the files below ``root``, in words; empty: all is well. Default: it loads."""
        try:
            self.load(root)
        except DataError as error:
            return [in_words(error)]
        return []

    def fetch(self, root: Path) -> None:
        """Download into ``root``. Raises ``DataError`` where that is impossible, as it is by default."""
        raise DataError(f"the data set {self.name} has nothing to download")

    def mend(self, root: Path) -> str | None:
        """The shell command that mends what ``check`` found; ``None`` for a set that cannot be downloaded."""
        return None if type(self).fetch is Dataset.fetch else fetch_command(self.name, root)


def in_words(error: DataError) -> str:
    """One problem of :meth:`Dataset.check`: what happened, and what to do next."""
    return f"{error} ({error.hint})" if error.hint else str(error)
