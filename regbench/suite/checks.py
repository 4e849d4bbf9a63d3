"""What the tables of a suite must be to each other and to the plugins that are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from pydantic import ValidationError

from regbench.data.base import ImageShape
from regbench.errors import DataError, Fault, PluginError
from regbench.plugins import Plugin, Registry
from regbench.suite.claims import Claim, Difference, Equivalence, Monotone
from regbench.suite.faults import show, sound, unknown
from regbench.suite.methods import Method, check_options, methods_of, size
from regbench.suite.schema import (
    DatasetEntry,
    FigureEntry,
    Model,
    ModelPart,
    RegularizerEntry,
    SuiteHead,
    Training,
    TrainingPart,
    merge,
)
from regbench.suite.space import check_not_empty, check_tuning
from regbench.suite.table import Table
from regbench.suite.tuning import Tuning
from regbench.suite.widths import resolve_widths

MOST_CELLS = 100_000
SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window: sigma 1.5, cut off at 3.5 sigma."""


@dataclass(frozen=True)
class Draft:
    """The tables, as far as each is valid by itself; entries by their index in the file."""

    head: SuiteHead | None
    model: ModelPart
    training: TrainingPart
    datasets: Mapping[int, DatasetEntry]
    regularizers: Mapping[int, RegularizerEntry]
    figures: Mapping[int, FigureEntry]
    claims: Mapping[int, Claim]
    tuning: Tuning | None
    faulty: frozenset[str]
    """Dotted paths of what was not valid, and is missing here."""

    def sound(self, *places: str) -> bool:
        """Whether nothing is missing at these places."""
        return all(sound(self.faulty, place) for place in places)


def check(draft: Draft, registry: Registry) -> tuple[list[Method], list[Fault]]:
    """All methods of the suite, and every fault that shows only when tables are seen together."""
    shapes, dataset_faults = _check_datasets(draft, registry)
    methods, method_faults = _check_regularizers(draft, registry)
    faults = [
        *dataset_faults,
        *method_faults,
        *_check_metrics(draft, registry, shapes),
        *_check_settings(draft, shapes),
    ]
    labels = (
        [method.label for method in methods] if draft.sound("regularizers") and not method_faults else None
    )
    titles = [entry.title for entry in draft.datasets.values()] if draft.sound("datasets") else None
    return methods, [
        *faults,
        *_check_figures(draft, registry, labels, titles),
        *_check_baseline(draft, labels),
        *_check_claims(draft, labels, titles),
        *_check_tuning(draft, registry),
    ]


def _check_datasets(draft: Draft, registry: Registry) -> tuple[dict[int, ImageShape], list[Fault]]:
    shapes: dict[int, ImageShape] = {}
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for index, entry in draft.datasets.items():
        where = f"datasets[{index}]"
        if draft.sound(where):
            faults += _same_label(seen, entry.title, index, "datasets")
        plugin = _find(registry.dataset, entry.name, f"{where}.name", faults)
        if plugin is None or not draft.sound(f"{where}.options"):
            continue
        options, wrong = check_options(plugin, entry.options, f"{where}.options")
        faults += wrong
        if options is None:
            continue
        try:
            shape = plugin.cls(options).shape
            shapes[index] = ImageShape(int(shape.channels), int(shape.side))
        except DataError:  # the data may be elsewhere; planning the cells asks for them
            continue
        except Exception as error:  # a plugin's code runs in there
            problem = (
                f"{plugin.name} ({plugin.origin}) failed to tell its shape: {type(error).__name__}: {error}"
            )
            faults.append(Fault(where, "", problem))
    return shapes, faults


def _check_regularizers(draft: Draft, registry: Registry) -> tuple[list[Method], list[Fault]]:
    seeds = len(draft.head.seeds) if draft.head is not None else 1
    count = sum(size(entry) for entry in draft.regularizers.values())
    cells = count * max(1, len(draft.datasets)) * seeds
    if cells > MOST_CELLS:
        many = f"{cells:,}" if cells < 10**12 else "more than 10^12"
        return [], [
            Fault("regularizers", "", f"{many} cells (methods x data sets x seeds); at most {MOST_CELLS:,}")
        ]
    methods: list[Method] = []
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for index, entry in draft.regularizers.items():
        plugin = _find(registry.regularizer, entry.name, f"regularizers[{index}].name", faults)
        if plugin is None or not draft.sound(f"regularizers[{index}].options"):
            continue
        found, wrong = methods_of(entry, index, plugin)
        for method in found if draft.sound(f"regularizers[{index}]") else ():
            wrong += _same_label(seen, method.label, index, "regularizers")
        methods += found
        faults += wrong
    return methods, faults


def _same_label(seen: dict[str, int], label: str, index: int, table: str) -> Iterator[Fault]:
    """Labels name files too, and some file systems see no difference between AE and ae, or two ways to write an é."""
    other = seen.setdefault(normalize("NFC", normalize("NFC", label).casefold()), index)
    if other != index:
        problem = f"already the label of {table}[{other}]; give one of the two another"
        yield Fault(f"{table}[{index}].label", show(label), problem)


def _check_metrics(draft: Draft, registry: Registry, shapes: Mapping[int, ImageShape]) -> list[Fault]:
    faults: list[Fault] = []
    metrics = draft.head.metrics if draft.head is not None and draft.sound("suite.metrics") else ()
    for position, name in enumerate(metrics):
        where = f"suite.metrics[{position}]"
        _find(registry.metric, name, where, faults)
        if name in metrics[:position]:
            faults.append(Fault(where, show(name), "named twice"))
    for index, shape in shapes.items():
        faults += check_window(metrics, index, shape)
    return faults


def check_window(metrics: Sequence[str], dataset: int, shape: ImageShape) -> Iterator[Fault]:
    """SSIM is defined only where its window fits into the image."""
    if "ssim" in metrics and shape.side < SSIM_WINDOW:
        needed = f"the metric ssim needs images of {SSIM_WINDOW} x {SSIM_WINDOW} pixels or more"
        yield Fault(f"datasets[{dataset}]", "", f"{needed}; these have {shape.side} x {shape.side}")


def _check_figures(
    draft: Draft, registry: Registry, labels: Sequence[str] | None, titles: Sequence[str] | None
) -> list[Fault]:
    faults: list[Fault] = []
    for index, entry in draft.figures.items():
        where = f"figures[{index}].options"
        plugin = _find(registry.figure, entry.kind, f"figures[{index}].kind", faults)
        if plugin is None or not draft.sound(where):
            continue
        options, wrong = check_options(plugin, entry.options, where)
        faults += wrong
        if options is not None and plugin.cls.selective:
            chosen: Any = options
            faults += _check_names(f"{where}.methods", chosen.methods, labels, "label of a method")
            faults += _check_names(f"{where}.datasets", chosen.datasets, titles, "label of a data set")
    return faults


def _check_settings(draft: Draft, shapes: Mapping[int, ImageShape]) -> list[Fault]:
    """The merged settings of each regularizer on each data set."""
    faults: list[Fault] = []
    for d, dataset in draft.datasets.items():
        for r, regularizer in draft.regularizers.items():
            training = parts_of("training", d, r, draft.training, dataset.training, regularizer.training)
            model = parts_of("model", d, r, draft.model, dataset.model, regularizer.model)
            if draft.sound(*training):
                faults += _check_training(training)
                faults += _check_trial_epochs(draft, training)
            if draft.sound(*model) and d in shapes:
                faults += check_widths(model, d, shapes[d])
    return faults


def _check_training(parts: Mapping[str, Table]) -> Iterator[Fault]:
    try:
        training = merge(Training, *parts.values())
    except ValidationError:  # every part is valid, so this is the one field without a default
        yield Fault("training.epochs", "", "required, but not given")
        return
    if training.warmup >= training.epochs:
        where, key = last_setting(parts, ("epochs", "warmup"))
        if key == "warmup":
            expected = f"expected fewer epochs of warm-up than the {training.epochs} epochs of the training"
        else:
            expected = f"expected more epochs than the {training.warmup} of the warm-up (training.warmup)"
        yield Fault(f"{where}.{key}", str(getattr(training, key)), expected)


def _check_trial_epochs(draft: Draft, parts: Mapping[str, Table]) -> Iterator[Fault]:
    """A trial has the cell's warm-up, and must get beyond it, too."""
    epochs = draft.tuning.epochs if draft.tuning is not None else None
    where, key = last_setting(parts, ("warmup",))
    warmup = getattr(merge(TrainingPart, *parts.values()), "warmup", None)
    warmup = Training.model_fields["warmup"].default if warmup is None else warmup
    if epochs is not None and warmup >= epochs:
        yield Fault(
            "tuning.epochs", show(epochs), f"expected more than the warm-up's {warmup} ({where}.{key})"
        )


def check_widths(parts: Mapping[str, Table], dataset: int, shape: ImageShape) -> Iterator[Fault]:
    """The net has a block for each width, and each block halves the image."""
    widths = merge(Model, *parts.values()).widths
    try:
        resolve_widths(shape.side, widths)
    except ValueError as error:
        if widths is None:
            yield Fault(f"datasets[{dataset}]", "", str(error))
        else:
            where, key = last_setting(parts, ("widths",))
            yield Fault(f"{where}.{key}", show(list(widths)), f"on datasets[{dataset}]: {error}")


def parts_of(table: str, dataset: int, regularizer: int, *parts: Table) -> dict[str, Table]:
    """The parts that a cell's settings are merged from, by their dotted paths."""
    places = (table, f"datasets[{dataset}].{table}", f"regularizers[{regularizer}].{table}")
    return dict(zip(places, parts, strict=True))


def last_setting(parts: Mapping[str, Table], keys: Sequence[str]) -> tuple[str, str]:
    """Where a merged setting comes from: the last part, by its dotted path, that sets one of ``keys``.

    The last of the keys counts where a part sets several; the suite's own table, where none is set.
    """
    for where, part in reversed(list(parts.items())):
        for key in reversed(keys):
            if key in part.model_fields_set:
                return where, key
    return next(iter(parts)), keys[0]


def _check_tuning(draft: Draft, registry: Registry) -> list[Fault]:
    entries = {
        index: (entry, registry.regularizers[entry.name])
        for index, entry in draft.regularizers.items()
        if entry.name in registry.regularizers and draft.sound(f"regularizers[{index}]")
    }
    if draft.tuning is None and not draft.sound("tuning"):
        return []  # there is one, and it has faults of its own
    metrics = draft.head.metrics if draft.head is not None and draft.sound("suite.metrics") else None
    faults = check_tuning(draft.tuning, entries, metrics)
    if draft.tuning is None or faults or not draft.sound("tuning", "regularizers") or not entries:
        return faults
    return faults + check_not_empty(draft.tuning, entries)


def _check_baseline(draft: Draft, labels: Sequence[str] | None) -> list[Fault]:
    baseline = draft.head.baseline if draft.head is not None else None
    if baseline is None or labels is None or baseline in labels:
        return []
    return [Fault("suite.baseline", show(baseline), unknown("label of a method", baseline, labels))]


def _check_claims(draft: Draft, labels: Sequence[str] | None, titles: Sequence[str] | None) -> list[Fault]:
    faults: list[Fault] = []
    for index, claim in draft.claims.items():
        where = f"claims[{index}]"
        references = claim.references if isinstance(claim, Equivalence | Difference) else ()
        faults += _check_names(f"{where}.methods", claim.methods, labels, "label of a method")
        faults += _check_names(f"{where}.references", references, labels, "label of a method")
        faults += _check_names(f"{where}.datasets", claim.datasets, titles, "label of a data set")
        for position, label in enumerate(references):
            if label in claim.methods:
                faults.append(
                    Fault(f"{where}.references[{position}]", show(label), "also one of the methods")
                )
        margin = claim.margin if isinstance(claim, Equivalence | Monotone) else None
        of = None if margin is None else margin.of
        if of is not None and labels is not None and of not in labels:
            faults.append(Fault(f"{where}.margin.of", show(of), unknown("label of a method", of, labels)))
        if draft.head is not None and draft.sound("suite.metrics") and claim.metric not in draft.head.metrics:
            problem = unknown("metric of this suite", claim.metric, draft.head.metrics)
            faults.append(Fault(f"{where}.metric", show(claim.metric), problem))
    return faults


def _check_names(where: str, names: Sequence[str], known: Sequence[str] | None, kind: str) -> Iterator[Fault]:
    """Names in a list exist and differ; ``known`` is ``None`` where that cannot be told."""
    for position, name in enumerate(names):
        if name in names[:position]:
            yield Fault(f"{where}[{position}]", show(name), "named twice")
        elif known is not None and name not in known:
            yield Fault(f"{where}[{position}]", show(name), unknown(kind, name, known))


def _find(find: Callable[[str], Plugin], name: str, where: str, faults: list[Fault]) -> Plugin | None:
    try:
        return find(name)
    except PluginError as error:
        faults.append(
            Fault(
                where,
                show(name),
                "; ".join(line.strip() for line in str(error).splitlines()),
                error.hint or "",
            )
        )
        return None
