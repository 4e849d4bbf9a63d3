"""A registry of made-up plugins, so that suites can be tested without torch, data or installed packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from regbench.data.base import Dataset, DatasetOptions, Images, ImageShape, Sizes
from regbench.errors import DataError
from regbench.plugins import Broken, Plugin, Registry
from regbench.report.figure import Figure, SelectionOptions


class Options(DatasetOptions):
    """The base of all plugins' options; they share one configuration."""


class PlainOptions(Options):
    updates_per_batch: int = Field(1, ge=1)


class KLOptions(Options):
    weight: float = Field(1.0, ge=0)


class MMDOptions(Options):
    weight: float | None = Field(None, ge=0)
    bandwidth: float | Literal["median"] | None = None
    kernel: Literal["gaussian", "imq"] = "gaussian"
    closed_form: bool = False
    scales: tuple[float, ...] = (1.0,)

    @model_validator(mode="after")
    def _kernel_fits(self) -> MMDOptions:
        if self.closed_form and self.kernel != "gaussian":
            raise ValueError("closed_form needs the gaussian kernel")
        return self


class ProtoOptions(Options):
    prototypes: int = Field(10, ge=1)


class FaultyOptions(Options):
    """A plugin with a bug."""

    @model_validator(mode="after")
    def _bug(self) -> FaultyOptions:
        raise KeyError("oops")


class Regularizer:
    Options: type[Options] = Options

    @classmethod
    def misfits(cls, options: Any, dims: Any) -> dict[str, str]:
        return {}


class AE(Regularizer):
    Options = PlainOptions


class VAEKL(Regularizer):
    Options = KLOptions


class MMD(Regularizer):
    Options = MMDOptions


class Proto(Regularizer):
    Options = ProtoOptions

    @classmethod
    def misfits(cls, options: Any, dims: Any) -> dict[str, str]:
        most = 10 * dims.images
        return {"prototypes": f"expected at most {most}"} if options.prototypes > most else {}


class Faulty(Regularizer):
    Options = FaultyOptions


class Squares(Dataset):
    """A published data set: all is known without the data."""

    name = "squares"
    looked_at = 0
    """How often a fingerprint was asked for."""

    @property
    def shape(self) -> ImageShape:
        return ImageShape(channels=1, side=16)

    def sizes(self, root: Path) -> Sizes:
        return Sizes(train=1000, test=200)

    def fingerprint(self, root: Path) -> str:
        type(self).looked_at += 1
        return "md5:squares"

    def load(self, root: Path) -> Images:
        raise AssertionError("planning must not load the data")


class TreeOptions(Options):
    path: Path
    side: int = Field(28, ge=4)
    channels: Literal[1, 3] = 3


class Tree(Dataset):
    """A data set of the user's own: some of it is known only where the files are."""

    name = "tree"
    Options = TreeOptions

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.options.channels, self.options.side)

    def sizes(self, root: Path) -> Sizes:
        if "missing" in str(self.options.path):
            raise DataError(f"{root / self.options.path} is missing")
        return Sizes(train=100, test=20)

    def fingerprint(self, root: Path) -> str:
        return f"sha256:{self.options.path.name}"

    def load(self, root: Path) -> Images:
        raise AssertionError("planning must not load the data")


class Late(Tree):
    """What a data set that tells its shape only where its files are does."""

    name = "late"
    present = False

    @property
    def shape(self) -> ImageShape:
        if not type(self).present:
            raise DataError("where are the files?")
        return super().shape


class Buggy(Squares):
    """A data set with a bug."""

    name = "buggy"

    def sizes(self, root: Path) -> Sizes:
        raise KeyError("oops")


class CurvesOptions(SelectionOptions):
    width: float = Field(6.0, gt=0)


class Curves(Figure):
    Options = CurvesOptions
    selective = True


def plugin(name: str, cls: type[Any], *, source: str = "0" * 64, version: str = "1.0") -> Plugin:
    return Plugin(name, cls, "fake", version, source, "fake.py")


def registry(source: str = "0" * 64, version: str = "1.0") -> Registry:
    """Two or three plugins of each kind, and a broken one."""
    regularizers = {"ae": AE, "vae-kl": VAEKL, "infovae-mmd": MMD, "proto-vae": Proto, "faulty": Faulty}
    made = {name: plugin(name, cls, source=source, version=version) for name, cls in regularizers.items()}
    return Registry(
        regularizers=made,
        datasets={cls.name: plugin(cls.name, cls) for cls in (Squares, Tree, Late, Buggy)},
        metrics={name: plugin(name, object) for name in ("mse", "psnr", "ssim", "bce_excess")},
        figures={"curves": plugin("curves", Curves)},
        broken=[
            Broken("bad-package (bad)", "import failed: ImportError: no module named x", "...", ("bad",))
        ],
    )
