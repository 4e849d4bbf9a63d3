"""From a suite to its cells, and what a cell's identity is made of.

A cell is one method on one data set with one seed. Its id is the SHA-256 of all that determines its numbers,
so a result is found again whatever the labels are, wherever the data lie, whichever device it is run on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import BaseModel

from regbench.data.base import Dataset, ImageShape, Sizes
from regbench.data.split import SplitSizes, split_sizes
from regbench.errors import Fault, PluginError, RegbenchError, SuiteError, UsageError
from regbench.plugins import Plugin, Registry
from regbench.suite.checks import check_widths, check_window, last_setting, parts_of
from regbench.suite.faults import show, validate
from regbench.suite.methods import Method, methods_of
from regbench.suite.schema import DatasetEntry, Suite
from regbench.suite.widths import resolve_widths

KEY_SCHEMA = 1
"""Version of the key's own layout."""
NUMERICS = 1
"""Version of the harness's numbers: raised when a change to nets, training or evaluation alters results."""
NOT_HASHED = ("curve_points", "compile")
"""Settings of ``[training]`` that no number depends on, or only its rounding."""

Phase = Literal["final", "trial", "untuned"]
PHASES: dict[Phase, dict[str, str]] = {
    "final": {},
    "trial": {"evaluated_on": "held-out images"},
    "untuned": {"awaits": "tuning"},
}
"""What the key of a cell says of its phase."""


@dataclass(frozen=True)
class CellSpec:
    """One cell, with everything resolved: all that a worker needs besides the data and the device."""

    method: str
    """Label of the method; not part of the identity, like all labels."""
    dataset: str
    """Label of the data set."""
    regularizer: str
    """Name of the regularizer."""
    options: dict[str, Any]
    """Every option of the regularizer, as JSON holds them."""
    plugin: dict[str, str]
    """Where the regularizer comes from: ``distribution``, ``version``, and ``source``, a hash of its code."""
    dataset_name: str
    dataset_options: dict[str, Any]
    """Every option of the data set, as JSON holds them."""
    paths: tuple[str, ...]
    """Which of them only say where the data lie; the fingerprint stands for them in the identity."""
    fingerprint: str
    train_images: int
    """Images that train, after some are held out."""
    test_images: int
    channels: int
    side: int
    model: dict[str, Any]
    """``latent``, ``features``, ``widths``, ``kernel``, ``bottleneck_activation``."""
    training: dict[str, Any]
    """All of ``[training]`` but what is not hashed, ``precision`` resolved."""
    curve_points: int
    """How many epochs the curves are evaluated at; not part of the identity."""
    seed: int
    compile: Literal["auto", "on", "off"] = "auto"
    """What ``[training]`` says of compilation; not part of the identity."""
    phase: Phase = "final"
    """``trial``: one of tuning, evaluated on the held-out images in place of the test images. ``untuned``: stands for
    the cell whose settings tuning has not selected yet, and is never run."""

    def key(self) -> dict[str, Any]:
        """All that determines the cell's numbers, as it is hashed."""
        options = {name: value for name, value in self.dataset_options.items() if name not in self.paths}
        test = {} if self.phase == "trial" else {"test_images": self.test_images}
        return {
            "schema": KEY_SCHEMA,
            "numerics": NUMERICS,
            "regularizer": {"name": self.regularizer, "options": self.options, "plugin": self.plugin},
            "dataset": {
                "name": self.dataset_name,
                "options": options,
                "fingerprint": self.fingerprint,
                "train_images": self.train_images,
                **test,
            },
            "model": self.model,
            "training": self.training,
            "seed": self.seed,
            **PHASES[self.phase],
        }

    def key_without_source(self) -> dict[str, Any]:
        """The key of the same cell whatever the regularizer's code; see :func:`without_source`."""
        return without_source(self.key())

    @cached_property
    def id(self) -> str:
        """SHA-256 of the key, in hexadecimal."""
        return hashlib.sha256(canonical(self.key()).encode()).hexdigest()

    @property
    def id16(self) -> str:
        return self.id[:16]

    @property
    def slug(self) -> str:
        """Name of the cell's directory. Its end, the id, is what identifies it; labels may change."""
        return f"{_slug(self.dataset)}-{_slug(self.method)}-s{self.seed}-{self.id16}"

    @property
    def title(self) -> str:
        """For people: ``digits ProtoVAE K=10 seed 0``. A trial's method says which one it is; all share a seed."""
        return f"{self.dataset} {self.method}" + ("" if self.phase == "trial" else f" seed {self.seed}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> CellSpec:
        """The inverse of :meth:`to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "paths": tuple(fields["paths"])})


def dataset_of(spec: CellSpec, registry: Registry) -> Dataset:
    """The data set of a cell; nothing is read yet."""
    cls = registry.dataset(spec.dataset_name).cls
    dataset: Dataset = cls(cls.Options(**spec.dataset_options))
    return dataset


def canonical(key: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces; refuses NaN and infinity."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)


def without_source(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key, this run's or one from the store, less the hash of the code.

    Where two keys differ, and these do not, the result is stale only because the code has changed.
    """
    regularizer = key["regularizer"]
    plugin = {name: value for name, value in regularizer["plugin"].items() if name != "source"}
    return {**key, "regularizer": {**regularizer, "plugin": plugin}}


def expand(
    suite: Suite, registry: Registry, data_root: Path, resolve_precision: Callable[[str], str]
) -> tuple[CellSpec, ...]:
    """All cells of a suite: by data set, then method, then seed, each in the suite's order.

    Args:
        data_root: where the data lie; published sets are planned without them.
        resolve_precision: what ``auto``, ``fp32`` and ``bf16`` come to on the device at hand.

    Raises:
        SuiteError: more images or larger batches than the data set has, or the same cell twice.
        DataError: the data are needed to plan, and are not as they must be.
    """
    methods: list[Method] = []
    for index, entry in enumerate(suite.regularizers):
        found, faults = methods_of(entry, index, registry.regularizer(entry.name))
        methods += found
        if faults:
            raise SuiteError(suite.file, faults)
    cells: list[CellSpec] = []
    owners: dict[str, tuple[int, int]] = {}
    faults = []
    for d, dataset in enumerate(suite.datasets):
        data, wrong = _Data.read(dataset, d, registry.dataset(dataset.name), data_root)
        wrong += _check_shape(suite, d, data) if data is not None else ()
        faults += wrong
        if data is None or wrong:
            continue
        settings = [
            _Settings.of(suite, d, r, data, resolve_precision) for r in range(len(suite.regularizers))
        ]
        faults += [fault for each in settings for fault in each.faults]
        for method in methods:
            faults += _misfits(method, data, settings[method.entry])
            for seed in suite.seeds:
                cell = _cell(method, dataset.title, data, settings[method.entry], seed)
                faults += _same_cell(owners, cell.id, d, method.entry)
                cells.append(cell)
    if faults:
        raise SuiteError(suite.file, list(dict.fromkeys(faults)))
    return tuple(cells)


@dataclass(frozen=True)
class _Data:
    """What a cell records of its data set."""

    plugin: Plugin
    options: dict[str, Any]
    paths: tuple[str, ...]
    fingerprint: str
    sizes: SplitSizes
    channels: int
    side: int

    @classmethod
    def read(
        cls, entry: DatasetEntry, index: int, plugin: Plugin, root: Path
    ) -> tuple[_Data | None, list[Fault]]:
        where = f"datasets[{index}]"
        options, faults = validate(plugin.cls.Options, entry.options, f"{where}.options")
        if options is None:
            return None, faults
        total, shape, fingerprint = _ask(plugin, options, root)
        for field in ("train_images", "test_images"):
            wanted = getattr(entry, field)
            try:
                split_sizes(total, **{field: wanted})
            except UsageError as error:
                _, _, expected = str(error).partition(": ")
                faults.append(Fault(f"{where}.{field}", str(wanted), expected))
        if faults:
            return None, faults
        data = cls(
            plugin=plugin,
            options=options.model_dump(mode="json"),
            paths=tuple(
                name for name in type(options).model_fields if isinstance(getattr(options, name), PurePath)
            ),
            fingerprint=fingerprint,
            sizes=split_sizes(total, entry.train_images, entry.test_images),
            channels=shape.channels,
            side=shape.side,
        )
        return data, []


def _ask(plugin: Plugin, options: BaseModel, root: Path) -> tuple[Sizes, ImageShape, str]:
    """Sizes, shape and fingerprint of a data set; what goes wrong inside a plugin is said to be its fault."""
    try:
        dataset: Dataset = plugin.cls(options)
        return dataset.sizes(root), dataset.shape, dataset.fingerprint(root)
    except RegbenchError:
        raise
    except Exception as error:
        problem = f"the data set {plugin.name!r} ({plugin.origin}) failed: {type(error).__name__}: {error}"
        raise PluginError(
            problem, hint="planning a suite asks it for sizes, shape and fingerprint"
        ) from error


@dataclass(frozen=True)
class _Settings:
    """The merged settings of one regularizer entry on one data set."""

    model: dict[str, Any]
    training: dict[str, Any]
    curve_points: int
    compile: Literal["auto", "on", "off"]
    faults: list[Fault]

    @classmethod
    def of(
        cls, suite: Suite, d: int, r: int, data: _Data, resolve_precision: Callable[[str], str]
    ) -> _Settings:
        dataset, regularizer = suite.datasets[d], suite.regularizers[r]
        model = suite.model_for(dataset, regularizer)
        training = suite.training_for(dataset, regularizer)
        faults = []
        if training.batch_size > data.sizes.train:
            parts = parts_of("training", d, r, suite.training, dataset.training, regularizer.training)
            where, key = last_setting(parts, ("batch_size",))
            expected = f"expected at most {data.sizes.train:,}, the training images of {dataset.title}"
            faults.append(Fault(f"{where}.{key}", str(training.batch_size), expected))
        resolved = training.model_dump(mode="json", exclude=set(NOT_HASHED))
        return cls(
            model={**model.model_dump(mode="json"), "widths": list(resolve_widths(data.side, model.widths))},
            training={**resolved, "precision": resolve_precision(training.precision)},
            curve_points=training.curve_points,
            compile=training.compile,
            faults=faults,
        )


def _check_shape(suite: Suite, d: int, data: _Data) -> Iterator[Fault]:
    """For data sets that know their shape only with the data; the others were checked when the suite was read."""
    shape = ImageShape(data.channels, data.side)
    yield from check_window(suite.metrics, d, shape)
    for r, regularizer in enumerate(suite.regularizers):
        parts = parts_of("model", d, r, suite.model, suite.datasets[d].model, regularizer.model)
        yield from check_widths(parts, d, shape)


def _misfits(method: Method, data: _Data, settings: _Settings) -> Iterator[Fault]:
    """Options of a method that do not go with the sizes of this net and data."""
    from regbench.api import Dims

    plugin, model = method.plugin, settings.model
    dims = Dims(model["latent"], model["features"], data.channels, data.side, data.sizes.train)
    where = f"regularizers[{method.entry}].options"
    try:
        found = dict(plugin.cls.misfits(plugin.cls.Options(**method.options), dims))
    except Exception as error:  # a plugin's code runs in there
        problem = f"misfits() of {plugin.name} ({plugin.origin}) failed: {type(error).__name__}: {error}"
        yield Fault(where, "", problem)
        return
    for name, expected in found.items():
        yield Fault(f"{where}.{name}", show(method.options.get(name)), expected)


def _cell(method: Method, dataset: str, data: _Data, settings: _Settings, seed: int) -> CellSpec:
    plugin = method.plugin
    return CellSpec(
        method=method.label,
        dataset=dataset,
        regularizer=plugin.name,
        options=dict(method.options),
        plugin={"distribution": plugin.distribution, "version": plugin.version, "source": plugin.source},
        dataset_name=data.plugin.name,
        dataset_options=data.options,
        paths=data.paths,
        fingerprint=data.fingerprint,
        train_images=data.sizes.train,
        test_images=data.sizes.test,
        channels=data.channels,
        side=data.side,
        model=settings.model,
        training=settings.training,
        curve_points=settings.curve_points,
        compile=settings.compile,
        seed=seed,
    )


def _same_cell(owners: dict[str, tuple[int, int]], cell_id: str, dataset: int, entry: int) -> Iterator[Fault]:
    """Two names for one thing: in the store there can be only one result."""
    d, r = owners.setdefault(cell_id, (dataset, entry))
    if d != dataset:
        yield Fault(f"datasets[{dataset}]", "", f"the same images as datasets[{d}]; leave one of them out")
    elif r != entry:
        expected = f"the same options and settings as regularizers[{r}]; leave one of them out"
        yield Fault(f"regularizers[{entry}]", "", expected)


@lru_cache(maxsize=1024)  # of few labels
def _slug(label: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most 40 characters."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40].strip("-") or "x"
