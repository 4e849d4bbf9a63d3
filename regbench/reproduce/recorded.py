"""A result's record: verified, and turned back into the cell that it describes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from regbench.data.base import Dataset
from regbench.errors import DataError, StoreError, UsageError
from regbench.evaluation import EVALUATION
from regbench.plugins import Registry
from regbench.reproduce.compare import Change
from regbench.reproduce.find import title
from regbench.store.records import CellRecord, Run, read_json
from regbench.suite.cells import NUMERICS, CellSpec, Phase, dataset_of
from regbench.suite.schema import Training
from regbench.verify import data_problems, key_of, verified_key


@dataclass(frozen=True)
class Recorded:
    """A finished cell with all that is known of how it was made."""

    record: CellRecord
    run: Run | None
    spec: CellSpec
    result: dict[str, Any]
    attempt: dict[str, Any]
    """The provenance; empty where it is not there any more."""
    seeds: tuple[CellRecord, ...] = ()
    """Finished cells of the run that differ from this one in nothing but the seed, and this one."""


def read_recorded(record: CellRecord, run: Run | None, registry: Registry) -> Recorded:
    """Verify a result and read its record. Raises ``StoreError`` where it is not what it says it is."""
    if record.status != "done":
        raise UsageError(
            f"{title(record)} has no result: {record.status} ({record.outcome.get('reason', '')})",
            hint=f"run the suite first; its directory is {record.directory}",
        )
    key, result = verified_key(record), record.result
    file = record.directory / "attempts" / Path(result.get("attempt", "")).name / "attempt.json"
    attempt = dict(read_json(file)) if file.is_file() else {}
    spec = _spec_of(attempt, file) or _spec_of_key(key, record, registry)
    if spec.id != result["id"]:
        raise StoreError(
            f"{file} describes another cell than the one that {record.result_dir} is the result of",
            hint="one of them has been altered or moved here",
        )
    return Recorded(record, run, spec, result, attempt, _seeds(record, run, key))


def _spec_of(attempt: dict[str, Any], file: Path) -> CellSpec | None:
    """The cell that an attempt records, where it does."""
    if "spec" not in attempt:
        return None
    try:
        return CellSpec.from_json(json.dumps(attempt["spec"]))
    except (TypeError, KeyError) as error:
        raise StoreError(
            f"{file} describes a cell that this regbench does not understand: {error}",
            hint="use the regbench version that wrote it",
        ) from error


def _spec_of_key(key: dict[str, Any], record: CellRecord, registry: Registry) -> CellSpec:
    """The cell of a result that is older than specs in ``attempt.json``, from its key alone."""
    dataset = key["dataset"]
    cls = registry.dataset(dataset["name"]).cls
    try:
        options = cls.Options(**dataset["options"])
    except ValueError as error:
        raise StoreError(
            f"{record.directory} does not record where its data lie: data set {dataset['name']} needs more options",
            hint="run its suite again: results record it now",
        ) from error
    made: Dataset = cls(options)
    phase: Phase = "trial" if "evaluated_on" in key else "final"
    return CellSpec(
        method=record.method,
        dataset=record.dataset,
        regularizer=key["regularizer"]["name"],
        options=key["regularizer"]["options"],
        plugin=key["regularizer"]["plugin"],
        dataset_name=dataset["name"],
        dataset_options=options.model_dump(mode="json"),
        paths=tuple(
            name for name in type(options).model_fields if isinstance(getattr(options, name), PurePath)
        ),
        fingerprint=dataset["fingerprint"],
        train_images=dataset["train_images"],
        test_images=dataset.get("test_images", 0),
        channels=made.shape.channels,
        side=made.shape.side,
        model=key["model"],
        training=key["training"],
        curve_points=int(Training.model_fields["curve_points"].default),
        seed=key["seed"],
        phase=phase,
    )


def _seeds(record: CellRecord, run: Run | None, key: dict[str, Any]) -> tuple[CellRecord, ...]:
    if run is None:
        return (record,)
    found = []
    for other in run.select(dataset=record.dataset, method=record.method):
        if (
            other.status == "done"
        ):  # cell.json, as the lock names other code where a stale result was accepted
            its = key_of(other)
            if {**its, "seed": None} == {**key, "seed": None}:
                found.append(other)
    return tuple(found)


def changed_code(recorded: Recorded, registry: Registry) -> tuple[Change, ...]:
    """What the numbers come from, where it is not what it was; ``stale`` where numbers may be others for it."""
    spec, result = recorded.spec, recorded.result
    method = registry.regularizer(spec.regularizer)
    what = f"regularizer {spec.regularizer}"
    key = key_of(recorded.record)
    pairs = [
        (f"{what}, distribution", spec.plugin["distribution"], method.distribution, False),
        (f"{what}, version", spec.plugin["version"], method.version, False),
        (f"{what}, code", spec.plugin["source"], method.source, True),
        ("training, version of the numbers", key["numerics"], NUMERICS, True),
        ("evaluation, version of the numbers", result.get("evaluation", 1), EVALUATION, True),
    ]
    for name, source in result.get("metric_sources", {}).items():
        pairs.append((f"metric {name}, code", source, registry.metric(name).source, True))
    return tuple(
        Change(what, _short(then), _short(now), stale) for what, then, now, stale in pairs if then != now
    )


def check_data(recorded: Recorded, registry: Registry, root: Path) -> None:
    """The images must be there, sound, and those that the result was made from. Raises ``DataError``."""
    spec = recorded.spec
    problems, mend = data_problems(spec, registry, root)
    if problems:
        raise DataError("\n".join(problems), hint=mend or "regbench data ls shows what is where")
    found = dataset_of(spec, registry).fingerprint(root)
    if found != spec.fingerprint:
        raise DataError(
            f"data set {spec.dataset} has other images than the result was made from: "
            f"fingerprint {_short(found)}, recorded {_short(spec.fingerprint)}",
            hint="give the place of the same images with --data-dir, or as its options name them",
        )


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:19]}..." if len(text) > 60 else text
