"""One method on one data set being tuned: its trials, which of them is best, and the cells that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from regbench.errors import Fault, SuiteError
from regbench.plugins import Plugin, Registry
from regbench.seeding import derive
from regbench.suite.cells import CellSpec
from regbench.suite.methods import check_options, methods_of
from regbench.suite.schema import Suite
from regbench.suite.space import Space, space_of
from regbench.suite.tuning import Tuning
from regbench.tuning.sampler import Sampler

TRIAL_CURVE_POINTS = 2
"""The learning curve of a trial is of no interest."""

TrialState = Literal["done", "failed", "diverged"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial that has ended."""

    number: int
    """From 0."""
    values: Mapping[str, Any]
    """What was tried, by the parameters' keys."""
    state: TrialState
    value: float | None
    """The metric at the mean code on the held-out images; ``None`` unless done."""
    reason: str = ""
    """Why there is no value."""
    slug: str = ""
    """Its directory below ``tuning/cells/``; empty where the method refused the settings, and nothing was run."""


@dataclass(frozen=True, slots=True)
class Question:
    """A trial whose end a study must know to go on."""

    number: int
    values: Mapping[str, Any]
    spec: CellSpec


Answer = Callable[[Question], Trial | None]
"""How a trial has ended; ``None``: that is not known yet."""


@dataclass(frozen=True)
class Study:
    """A method on a data set, and its trials so far. Without a space there are none, and nothing to select."""

    base: CellSpec
    """The method as the suite has it, with any of the seeds."""
    plugin: Plugin
    space: Space
    tuning: Tuning
    better: str
    trials: tuple[Trial, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.base.dataset} {self.base.method}"

    @property
    def budget(self) -> int:
        return self.tuning.trials if self.space else 0

    @property
    def pending(self) -> int:
        """Trials that have not ended yet."""
        return self.budget - len(self.trials)

    @property
    def best(self) -> Trial | None:
        """The trial that is selected, the earlier one of equals; ``None`` before all have ended, or if none is done."""
        done = [trial for trial in self.trials if trial.value is not None]
        if self.pending or not done:
            return None
        sign = 1 if self.better == "lower" else -1
        return min(done, key=lambda trial: sign * (trial.value or 0.0))

    @property
    def failed(self) -> bool:
        """Whether all trials have ended, and none is done."""
        return bool(self.space) and not self.pending and self.best is None

    @property
    def why_waiting(self) -> str:
        """What stands in the way of the method's cells; empty: nothing."""
        if self.failed:
            return f"all {self.budget} trials of its tuning failed"
        return (
            f"tuning comes first: {self.pending} of {self.budget} trials are missing" if self.pending else ""
        )

    @property
    def place(self) -> tuple[str, str]:
        """Labels of the data set and of the method."""
        return self.base.dataset, self.base.method

    def fits(self, spec: CellSpec) -> bool:
        """Whether a cell is of this method on this data set."""
        return (spec.dataset, spec.method) == self.place

    def trial_spec(self, number: int, values: Mapping[str, Any]) -> CellSpec | str:
        """The cell of a trial; in words, why the method's own ``Options`` refuse such a combination."""
        tuned = self._with(self.base, values)
        if isinstance(tuned, str):
            return tuned
        epochs = {} if self.tuning.epochs is None else {"epochs": self.tuning.epochs}
        return replace(
            tuned,
            method=trial_label(self.base.method, number),
            training={**tuned.training, **epochs},
            curve_points=TRIAL_CURVE_POINTS,
            seed=derive(self.tuning.seed, "tuning", "training"),
            phase="trial",
        )

    def final_spec(self, spec: CellSpec) -> CellSpec:
        """A cell of the suite with what was selected; where nothing is selected yet, what stands for it."""
        if not self.space:
            return spec
        tuned = self._with(spec, self.best.values) if self.best is not None else ""
        return replace(spec, phase="untuned") if isinstance(tuned, str) else tuned

    def _with(self, spec: CellSpec, values: Mapping[str, Any]) -> CellSpec | str:
        parts: dict[str, dict[str, Any]] = {"training": {}, "options": {}}
        for parameter in self.space:
            if parameter.key in values:
                parts[parameter.place][parameter.name] = values[parameter.key]
        options, faults = check_options(self.plugin, {**spec.options, **parts["options"]}, "options")
        if options is None:
            return "; ".join(str(fault) for fault in faults)
        training = {**spec.training, **parts["training"]}
        return replace(spec, options=options.model_dump(mode="json"), training=training)

    def start(self) -> dict[str, Any]:
        """The suite's own values, as far as they lie in the space: what the first trial tries."""
        own: dict[str, Mapping[str, Any]] = {"training": self.base.training, "options": self.base.options}
        found = {p.key: p.find(own[p.place].get(p.name)) for p in self.space}
        return {key: value for key, value in found.items() if value is not None}


def trial_label(method: str, number: int) -> str:
    """``AE trial 3``."""
    return f"{method} trial {number}"


def studies_of(suite: Suite, registry: Registry, specs: Sequence[CellSpec]) -> tuple[Study, ...]:
    """One study for each method on each data set, in the order of the cells; none without ``[tuning]``.

    Raises ``SuiteError`` where a batch would be larger than the training images.
    """
    if suite.tuning is None:
        return ()
    better = registry.metric(suite.tuning.metric).cls.better
    spaces: dict[str, Space] = {}
    for index, entry in enumerate(suite.regularizers):
        plugin = registry.regularizer(entry.name)
        for method in methods_of(entry, index, plugin)[0]:
            spaces[method.label] = space_of(suite.tuning, entry, plugin)
    firsts: dict[tuple[str, str], CellSpec] = {}
    for spec in specs:
        firsts.setdefault((spec.dataset, spec.method), spec)
    studies = tuple(
        Study(spec, registry.regularizer(spec.regularizer), spaces[spec.method], suite.tuning, better)
        for spec in firsts.values()
    )
    faults = [fault for study in studies for fault in _too_large(study)]
    if faults:
        raise SuiteError(suite.file, list(dict.fromkeys(faults)))
    return studies


def trial_names(studies: Sequence[Study]) -> list[CellSpec]:
    """All trials by their names, with settings that nobody has asked for yet: for patterns."""
    return [
        replace(study.base, method=trial_label(study.base.method, number), phase="trial")
        for study in studies
        for number in range(study.budget)
    ]


def resolve(
    specs: Sequence[CellSpec], studies: Sequence[Study]
) -> tuple[list[CellSpec], dict[tuple[str, str], str]]:
    """The cells with what was selected for them, and why others wait, by data set and method."""
    by_place = {study.place: study for study in studies}
    resolved = []
    for spec in specs:
        study = by_place.get((spec.dataset, spec.method))
        resolved.append(spec if study is None else study.final_spec(spec))
    return resolved, {place: study.why_waiting for place, study in by_place.items()}


def _too_large(study: Study) -> list[Fault]:
    images = study.base.train_images
    faults = []
    for parameter in study.space:
        largest = max([parameter.search.high or 0, *_numbers(parameter.search.choices or ())])
        if parameter.key == "training.batch_size" and largest > images:
            expected = f"expected at most {images:,}, the training images of {study.base.dataset}"
            faults.append(Fault("tuning.search.batch_size", f"{largest:g}", expected))
    return faults


def _numbers(choices: Sequence[Any]) -> list[float]:
    return [choice for choice in choices if isinstance(choice, int | float)]


def questions(study: Study) -> Generator[Question, Trial | None, Study]:
    """Ask for the study's trials from the first on, until all are answered or one has no answer; then the study."""
    if not study.space:
        return study
    seed = derive(study.tuning.seed, "tuning", "sampler") % 2**32
    sampler = Sampler(study.space, study.budget, seed, study.better, study.start())
    trials: list[Trial] = []
    for number in range(study.budget):
        values = sampler.ask()
        spec = study.trial_spec(number, values)
        if isinstance(spec, str):
            trial: Trial | None = Trial(number, values, "failed", None, f"refused by the method: {spec}")
        else:
            trial = yield Question(number, values, spec)
        if trial is None:
            break
        sampler.tell(trial.value)
        trials.append(trial)
    return replace(study, trials=tuple(trials))


def follow(study: Study, answer: Answer) -> Study:
    """The study with the answers to its questions."""
    asking = questions(study)
    try:
        question = next(asking)
        while True:
            question = asking.send(answer(question))
    except StopIteration as end:
        found: Study = end.value
        return found
