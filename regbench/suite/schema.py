"""The tables of a suite file, as frozen pydantic models. Every field carries its documentation.

``[training]`` and ``[model]`` may be given for the whole suite, for a data set and for a regularizer. Each is
a part (``TrainingPart``, ``ModelPart``: any of the fields); ``merge`` joins them, the later one winning.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, WithJsonSchema, create_model

from regbench.api import Search
from regbench.names import RESERVED
from regbench.suite.claims import Claim
from regbench.suite.faults import show_path
from regbench.suite.table import Table
from regbench.suite.tuning import Tuning

Settings = TypeVar("Settings", bound=Table)

MOST_SEEDS = 10_000
LARGEST_SEED = 2**63 - 1
LONGEST_FILE_LABEL = 120
"""Bytes of UTF-8: with what is added to it, a file's name may have 255."""


def _slug(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(?:[-_][a-z0-9]+)*", name) or len(name) > 64 or RESERVED.fullmatch(name):
        raise ValueError(
            "expected at most 64 lower-case letters, digits and single hyphens, like 'my-suite': "
            "a directory gets this name"
        )
    return name


def check_label(label: str) -> str:
    if not label.isprintable() or label.strip() != label or not 0 < len(label) <= 80:
        raise ValueError("expected 1 to 80 printable characters, without spaces at the ends")
    return label


def _file_label(label: str) -> str:
    if set(label) & set('<>:"/\\|?*') or {label[:1], label[-1:]} & {"."} or RESERVED.fullmatch(label):
        raise ValueError('expected a label that can name a file: none of <>:"/\\|?*, no dot at its ends')
    if len(label.encode(errors="replace")) > LONGEST_FILE_LABEL:
        raise ValueError(
            f"expected a label that can name a file: at most {LONGEST_FILE_LABEL} bytes of UTF-8"
        )
    return check_label(label)


def _seeds(value: Any) -> Any:
    """``n`` stands for 0 ... n-1; a list for itself."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SEEDS:
        return tuple(range(value))
    if isinstance(value, list | tuple) and 1 <= len(value) <= MOST_SEEDS:
        whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value)
        if whole and all(0 <= seed <= LARGEST_SEED for seed in value) and len(set(value)) == len(value):
            return tuple(value)
    raise ValueError(
        f"expected a number of seeds from 1 to {MOST_SEEDS}, or a list of different integers >= 0"
    )


Name = Annotated[str, Field(min_length=1, max_length=80)]
Slug = Annotated[str, AfterValidator(_slug)]
Label = Annotated[str, AfterValidator(check_label)]
FileLabel = Annotated[str, AfterValidator(_file_label)]
Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(_seeds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]


class SuiteHead(Table):
    """What the suite is called, how often each method is run, and what is measured."""

    name: Slug
    """Name of the suite and of its directory below `runs/` and `reports/`: lower-case letters, digits and
    single hyphens."""
    extends: str | None = Field(None, min_length=1)
    """Another suite file, beside this one or by its path from here, whose tables this one takes over. `[suite]`,
    `[model]`, `[training]` and `[tuning]` are joined key by key; a list such as `[[datasets]]` replaces the other's
    as a whole."""
    description: str = ""
    """One or two sentences that head the report."""
    seeds: Seeds = (0, 1, 2)
    """How many seeds (`3` stands for 0, 1, 2), or a list of seeds. Methods are paired by seed."""
    baseline: Label | None = None
    """Label of the method that the others are compared with. Without one: the first that uses `ae`."""
    metrics: tuple[Name, ...] = Field(("mse", "psnr", "ssim", "bce_excess"), min_length=1)
    """What is measured on each test image; `regbench plugins` lists the metrics."""


class Model(Table):
    """The shared autoencoder."""

    latent: int = Field(256, ge=1, le=65536)
    """D, units of the code z."""
    features: int = Field(256, ge=1, le=65536)
    """F, units of the encoder's last hidden layer h."""
    widths: tuple[Annotated[int, Field(ge=1, le=8192)], ...] | None = Field(None, min_length=1, max_length=10)
    """Channels after each stride-2 block, one block per entry. Without them: `[128, 256]` for images that can
    be halved twice, `[64, 128, 256]` where three times or more, `[256]` where only once."""
    kernel: int = Field(4, ge=2, le=15)
    """Side of the stride-2 convolutions' kernels."""
    bottleneck_activation: Literal["relu", "none"] = "relu"
    """What follows the encoder's last hidden layer."""


class Training(Table):
    """How every cell is trained."""

    epochs: int = Field(ge=1, le=1_000_000)
    """Passes over the training images, the warm-up included. Needed here, per data set or per regularizer."""
    warmup: int = Field(10, ge=0, le=1_000_000)
    """Epochs at the start that train on the reconstruction alone; fewer than `epochs`."""
    batch_size: int = Field(256, ge=1, le=1_000_000)
    """Images per batch; not more than there are training images."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Adam's learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of Adam's two moment estimates."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the training step; `auto` takes what the device does best, and records it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile makes the nets' kernels; `auto`: for long cells, with a C++ compiler."""
    loss_scale: Literal["sum", "mean"] = "sum"
    """Whether binary cross-entropy is summed over the pixels of an image or averaged."""
    curve_points: int = Field(60, ge=2, le=1_000_000)
    """At about how many epochs the learning curves are evaluated, the first and last among them."""
    train_subset: int = Field(10_000, ge=1)
    """How many fixed training images the training curve is evaluated on; all, where there are fewer."""


def _part(model: type[Table]) -> type[Table]:
    """The same table with every field left open."""
    fields: dict[str, Any] = {
        name: (Annotated[(info.annotation, *info.metadata, Field(description=info.description))], None)
        for name, info in model.model_fields.items()
    }
    return create_model(f"{model.__name__}Part", __base__=Table, __doc__=model.__doc__, **fields)


if TYPE_CHECKING:
    ModelPart = Table
    TrainingPart = Table
else:
    ModelPart = _part(Model)
    TrainingPart = _part(Training)


def merge(settings: type[Settings], *parts: Table) -> Settings:
    """Join parts, the later one winning. Raises ``ValidationError`` where a needed field is missing."""
    given: dict[str, Any] = {}
    for part in parts:
        given |= {name: getattr(part, name) for name in part.model_fields_set}
    return settings.model_validate(given)


class DatasetEntry(Table):
    """One data set; `regbench plugins` lists them."""

    name: Name
    """Which data set."""
    label: FileLabel | None = None
    """How tables and figures call it; without one: its name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the data set."""
    train_images: int | None = Field(None, ge=1)
    """Train on only this many of the training images."""
    test_images: int | None = Field(None, ge=1)
    """Evaluate on only this many of the test images."""
    training: TrainingPart = TrainingPart()
    """Settings of `[training]` that differ for this data set."""
    model: ModelPart = ModelPart()
    """Settings of `[model]` that differ for this data set."""

    @property
    def title(self) -> str:
        """The label, or else the name."""
        return self.name if self.label is None else self.label


class RegularizerEntry(Table):
    """One regularizer, or with `sweep` one method for each combination of the swept values."""

    name: Name
    """Which regularizer; `regbench plugins` lists them, `regbench plugins --options NAME` its options."""
    label: Label | None = None
    """How tables and figures call the method; `{option}` stands for the option's value. Without one: the name
    and the swept options (`proto-vae prototypes=10`)."""
    family: Label | None = None
    """Frontier of the trade-off that these methods belong to, as a rule because they differ in how hard they
    regularize; entries of the same family share one. Without it: none."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the regularizer."""
    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Lists of values for any of the options; their Cartesian product is run."""
    search: dict[str, Search] = Field(default_factory=dict)
    """What `[tuning]` tries for options of the regularizer, in place of what the regularizer declares for them."""
    training: TrainingPart = TrainingPart()
    """Settings of `[training]` that differ for this method, whatever the data set says."""
    model: ModelPart = ModelPart()
    """Settings of `[model]` that differ for this method, whatever the data set says."""


class FigureEntry(Table):
    """One kind of figure in the report; where a suite names none, all bundled kinds are drawn."""

    kind: Name
    """Which figure; `regbench plugins` lists them."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the figure."""


class Suite(Table):
    """A suite file."""

    suite: SuiteHead
    """What the suite is called, how often each method is run, and what is measured."""
    model: ModelPart = ModelPart()
    """The shared autoencoder."""
    training: TrainingPart = TrainingPart()
    """How every cell is trained."""
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    """The data sets, each with a label of its own."""
    regularizers: tuple[RegularizerEntry, ...] = Field(min_length=1)
    """The methods, each with a label of its own."""
    figures: tuple[FigureEntry, ...] = ()
    """The figures of the report; without any: every bundled kind."""
    claims: tuple[Claim, ...] = ()
    """What the suite expects to find, stated before any result."""
    tuning: Tuning | None = None
    """The selection of settings before the cells are run, with the same budget for every method."""

    _path: Path = PrivateAttr(Path("suite"))
    _bases: tuple[Path, ...] = PrivateAttr(())

    @property
    def path(self) -> Path:
        """The file that the suite was read from."""
        return self._path

    @property
    def bases(self) -> tuple[Path, ...]:
        """The files of the suites that it extends, the nearest first."""
        return self._bases

    @property
    def file(self) -> str:
        """The same for messages, free of characters that would disturb a terminal."""
        return show_path(self._path)

    @property
    def name(self) -> str:
        return self.suite.name

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.suite.seeds

    @property
    def baseline(self) -> str | None:
        """Label of the baseline; ``None`` where the suite names none and has no ``ae``."""
        return self.suite.baseline

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.suite.metrics

    def training_for(self, dataset: DatasetEntry, regularizer: RegularizerEntry) -> Training:
        """The training settings of one method on one data set."""
        return merge(Training, self.training, dataset.training, regularizer.training)

    def model_for(self, dataset: DatasetEntry, regularizer: RegularizerEntry) -> Model:
        """The model settings of one method on one data set; ``widths`` may still be ``None``."""
        return merge(Model, self.model, dataset.model, regularizer.model)
