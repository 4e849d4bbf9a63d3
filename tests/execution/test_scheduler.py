"""Whatever an engine reports, each cell ends once, and the store says how. No processes: all of it can be tried."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regbench.engines.base import Happening, Started
from regbench.execution.events import CellFinished, CellResumed, CellRetried, CellStarted, EpochFinished
from regbench.execution.planning import PlannedCell
from regbench.execution.scheduler import PLACED_AGAIN
from regbench.store.checkpoints import CheckpointShelf
from regbench.store.files import write_json
from regbench.store.records import Outcome, read_json
from regbench.store.writer import RESUMED
from tests.execution.simulated import (
    CELLS,
    EPOCHS,
    Play,
    Played,
    Steps,
    Trial,
    begun,
    done,
    ended,
    first_then,
    refused,
)


def test_cells_run_side_by_side_and_their_events_keep_their_order(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial = Trial(tmp_path, done)
    outcomes = trial.run(cells)
    assert {cell.id: Outcome("done", "", {"mse": 0.5}) for cell in cells} == outcomes
    for number, cell in enumerate(cells, 1):
        kinds = [type(event) for event in trial.events if event.cell == cell.spec.title]
        assert kinds == [CellStarted, EpochFinished, EpochFinished, CellFinished]
        assert [event.epoch for event in trial.told(EpochFinished, cell)] == [1, 2]
        (started,), (finished,) = trial.told(CellStarted, cell), trial.told(CellFinished, cell)
        assert (started.number, finished.number, started.epochs) == (number, number, EPOCHS)
    starts = [trial.events.index(trial.told(CellStarted, cell)[0]) for cell in cells[:2]]
    assert max(starts) < min(trial.events.index(event) for event in trial.told(CellFinished)), "side by side"


def test_a_cell_whose_process_dies_is_tried_again_alone_and_then_it_failed(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    dies = begun(lambda played: played.lost())
    trial = Trial(tmp_path, lambda played: dies(played) if played.job.slug == cells[0].slug else done(played))
    outcomes = trial.run(cells)
    assert [outcomes[cell.id].status for cell in cells] == ["failed", "done", "done", "done"]
    assert outcomes[cells[0].id].reason == (
        "its process was killed, also with nothing beside it; Linux kills processes so where memory runs out"
    )
    first, second = trial.of(cells[0])
    assert (first.beside, second.beside) == (1, 0)
    assert trial.engine.given[-1] is second, "the others come first"
    assert trial.statuses(cells[0]) == ["interrupted", "failed"]
    assert [event.reason for event in trial.told(CellRetried)] == ["its process was killed"]
    assert [event.epoch for event in trial.told(EpochFinished, cells[0])] == [1, 1]
    assert refused(second.commit), "its end is final"
    assert trial.told(CellFinished)[-1].cell == cells[0].spec.title


def test_too_little_memory_is_tried_again_alone_once(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    oom = begun(ended("oom"))
    trial = Trial(tmp_path, first_then(oom))
    assert {outcome.status for outcome in trial.run(cells).values()} == {"done"}
    assert [played.beside for played in trial.engine.given[CELLS:]] == [0] * CELLS
    always = Trial(tmp_path / "always", oom)
    outcomes = always.run(cells[:2])
    assert [outcome.status for outcome in outcomes.values()] == ["oom", "oom"]
    assert len(always.engine.given) == 4


def test_a_lost_place_is_not_the_cells_fault_until_there_are_too_many(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial = Trial(tmp_path, begun(lambda played: played.lost(cells_own=False)))
    outcome = trial.run(cells[:1])[cells[0].id]
    assert (outcome.status, len(trial.engine.given)) == ("failed", PLACED_AGAIN + 1)
    assert (
        outcome.reason
        == "given up after 6 lost places without progress; the last time its process was killed"
    )
    stopped = Trial(tmp_path / "stopped", first_then(begun(ended("interrupted", "stopped"))))
    assert stopped.run(cells[:1])[cells[0].id].status == "done", "somebody else stopped the worker"

    def never_begun(played: Played) -> Steps:
        yield played.answers("stopped")

    early = Trial(tmp_path / "early", first_then(never_begun))
    assert early.run(cells[:1])[cells[0].id].status == "done"
    assert early.told(CellRetried) == [], "nothing had been told of it"


def test_a_cell_longer_than_many_places_goes_on_as_long_as_it_makes_progress(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    """A queue ends each job after a while; a job that then has a newer checkpoint has not been in vain."""
    steps = 2 * PLACED_AGAIN

    def play(played: Played) -> Steps:
        attempt = played.begin()
        shelf = CheckpointShelf(played.writer.directory, {})
        if shelf.reached() < (1, steps):
            shelf.save(attempt.directory, 1, shelf.reached()[1] + 1, {}, b"")
        attempt.end("interrupted", "its time is over")
        yield played.answers("stopped")

    trial = Trial(tmp_path, play)
    outcome = trial.run(cells[:1])[cells[0].id]
    assert len(trial.engine.given) == steps + PLACED_AGAIN, "all that went on, and then those that did not"
    assert outcome.reason.startswith("given up after 6 lost places without progress")


def test_a_result_that_was_measured_again_is_told_with_its_numbers(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    """It still names the attempt that trained it."""

    def measures(played: Played) -> Steps:
        result = {"attempt": "1-00000000", "metrics": {"mean": {"mse": 0.25}}}
        played.begin().commit({"result.json": json.dumps(result).encode()}, replace=played.job.replace)
        yield played.answers()

    earlier = Trial(tmp_path, done)
    earlier.run(cells[:1])
    again = replace(cells[0], state="remeasure", replace=True)
    assert Trial(tmp_path, measures).run([again]) == {cells[0].id: Outcome("done", "", {"mse": 0.25})}


def test_a_damaged_earlier_result_does_not_end_the_cell_that_replaces_it(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    Trial(tmp_path, done).run(cells[:1])
    (tmp_path / "cells" / cells[0].slug / "result" / "result.json").write_text("{")
    trial = Trial(tmp_path, first_then(begun(lambda played: played.lost())))
    outcomes = trial.run([replace(cells[0], replace=True)])
    assert outcomes == {cells[0].id: Outcome("done", "", {"mse": 0.5})}
    assert len(trial.engine.given) == 2, "the first one's process had died"


def test_an_attempt_that_was_given_up_touches_nothing_any_more(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    """A frozen worker thaws while the next attempt runs, and tries everything."""
    frozen: list[Played] = []

    def freezes(played: Played) -> Steps:
        played.begin()
        played.row(1)
        frozen.append(played)
        yield None
        yield played.lost(cells_own=False)

    def meets_it(played: Played) -> Steps:
        played.begin()
        (old,) = frozen
        assert old.attempt is not None
        assert refused(lambda: old.row(2))
        assert refused(old.commit)
        assert refused(old.begin)
        assert refused(lambda: old.writer.claim.ask("batch"))
        yield None
        played.commit()
        yield played.answers()

    trial = Trial(tmp_path, first_then(freezes, meets_it))
    assert trial.run(cells[:1])[cells[0].id].status == "done"
    (old,) = frozen
    assert refused(old.commit)
    result = read_json(tmp_path / "cells" / cells[0].slug / "result" / "result.json")
    assert result["attempt"].endswith(trial.of(cells[0])[1].job.token)


def test_a_result_that_was_committed_in_the_last_moment_counts(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def commits_and_dies(played: Played) -> Steps:
        played.begin()
        played.commit()
        yield played.lost()

    trial = Trial(tmp_path, commits_and_dies)
    assert trial.run(cells[:1])[cells[0].id] == Outcome("done", "", {"mse": 0.5})
    assert len(trial.engine.given) == 1

    first: list[Played] = []

    def lost_between_check_and_rename(played: Played) -> Steps:
        played.begin()
        first.append(played)
        yield played.lost(cells_own=False)

    def comes_second(played: Played) -> Steps:
        (winner,) = first
        assert winner.attempt is not None
        played.begin()
        token = read_json(winner.writer.claim.path)
        write_json(winner.writer.claim.path, {**token, "token": winner.job.token})
        winner.commit()  # its check was before the claim moved on
        write_json(winner.writer.claim.path, token)
        assert refused(played.commit)
        yield played.answers("superseded", "committed by another")

    race = Trial(tmp_path / "race", first_then(lost_between_check_and_rename, comes_second))
    assert race.run(cells[:1])[cells[0].id] == Outcome("done", "", {"mse": 0.5})


def test_a_result_that_came_after_the_plan_is_not_made_again(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    """A queue's job outlives the run that submitted it, and ends while the next one begins."""
    Trial(tmp_path, done).run(cells[:1])
    trial = Trial(tmp_path, done)
    assert {outcome.status for outcome in trial.run(cells[:2]).values()} == {"done"}
    assert [played.job.slug for played in trial.engine.given] == [cells[1].slug]


def test_a_resumed_attempt_tells_its_earlier_epochs_once(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def resumes(played: Played) -> Steps:
        attempt = played.begin()
        rows = [{"epoch": 1, "phase": "warmup", "seconds": 0.1, "losses": {"loss": 1.0}}]
        write_json(attempt.directory / RESUMED, {"epoch": 1, "batch": 3, "notes": ["one was torn"]})
        yield None
        (attempt.directory / RESUMED).unlink()
        attempt.resumed(rows, 3, ["one was torn"])
        yield None
        played.row(2)
        yield None
        played.commit()
        yield played.answers()

    trial = Trial(tmp_path, first_then(begun(lambda played: played.lost()), resumes))
    trial.run(cells[:1])
    title = cells[0].spec.title
    assert [type(event) for event in trial.events] == [
        CellStarted,
        EpochFinished,
        CellRetried,
        CellResumed,
        EpochFinished,
        CellFinished,
    ]
    assert trial.told(CellResumed) == [CellResumed(title, 1, EPOCHS, 3, ("one was torn",))]
    assert [event.epoch for event in trial.told(EpochFinished)] == [1, 2]


def test_a_diverged_row_and_torn_lines_are_no_epochs(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    def diverges(played: Played) -> Steps:
        attempt = played.begin()
        played.row(1)
        with (attempt.directory / "metrics.jsonl").open("ab") as stream:
            stream.write(b'{"epoch": 2, "pha\n\0\0\0\n{}\n[1]\n')
        attempt.metrics({"epoch": 2, "phase": "warmup", "seconds": 0.1, "losses": {"loss": float("nan")}})
        yield None
        attempt.end("diverged", "epoch 2 (warmup): loss = nan")
        yield played.answers()

    trial = Trial(tmp_path, diverges)
    assert trial.run(cells[:1])[cells[0].id].status == "diverged"
    assert [event.epoch for event in trial.told(EpochFinished)] == [1]


def test_an_engine_may_begin_a_job_again_by_itself(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    def requeued(played: Played) -> Steps:
        yield Started(played.handle, "one node")
        played.begin()
        played.row(1)
        yield None
        yield Started(played.handle, "another")
        yield from done(played)

    trial = Trial(tmp_path, requeued)
    assert trial.run(cells[:1])[cells[0].id].status == "done"
    kinds = [type(event).__name__ for event in trial.events]
    assert kinds == [
        "CellStarted",
        "EpochFinished",
        "CellRetried",
        *["EpochFinished"] * EPOCHS,
        "CellFinished",
    ]


# What a job may do, and what an engine may say of it, in any order.


def _silent(kind: str, played: Played) -> Happening:
    """Ends that leave nothing in the store."""
    match kind:
        case "lost":
            return played.lost(signal=None)
        case "node":
            return played.lost(cells_own=False)
        case "nonsense":
            return type(played.answers())(played.handle, "no JSON")
        case _:
            return played.answers(kind, "a reason")


SILENT = ["lost", "node", "nonsense", "stopped", "refused", "superseded", "ended"]
ENDS = ["done", "failed", "diverged", "oom", "timeout", "interrupted"]


def scripted(draw: Callable[[Any], Any], dead: list[Played]) -> Play:
    def play(played: Played) -> Steps:
        if draw(st.booleans()):
            yield Started(played.handle, "here")
        for _ in range(draw(st.integers(0, 2))):  # an engine may begin it again and again
            played.begin()
            for epoch in range(1, 1 + draw(st.integers(0, EPOCHS))):
                played.row(epoch)
                yield None
        for old in dead:  # what was given up thaws now
            if old.job.slug == played.job.slug and old.attempt is not None:
                assert refused(old.commit)
        end = draw(st.sampled_from(SILENT + ENDS)) if played.attempt else draw(st.sampled_from(SILENT))
        if end in SILENT:
            dead.append(played)
            yield _silent(end, played)
            return
        assert played.attempt is not None
        if end == "done":
            played.commit()
        else:
            dead.append(played)
            played.attempt.end(end, f"it is {end}")
        yield played.lost() if draw(st.booleans()) else played.answers()

    return play


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of runs need not last on the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(data=st.data(), jobs=st.integers(1, 3))
def test_each_cell_ends_once_whatever_the_engine_reports(
    no_sync: None, data: st.DataObject, jobs: int, cells: tuple[PlannedCell, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        trial = Trial(run, scripted(data.draw, []), jobs=jobs)
        outcomes = trial.run(cells[:3])
        assert outcomes.keys() == {cell.id for cell in cells[:3]}
        for number, cell in enumerate(cells[:3], 1):
            own = [event for event in trial.events if event.cell == cell.spec.title]
            assert [(type(event), event.number) for event in (own[0], own[-1])] == [
                (CellStarted, number),
                (CellFinished, number),
            ]
            assert Counter(map(type, own))[CellStarted] == Counter(map(type, own))[CellFinished] == 1
            epochs = [0 if isinstance(event, CellRetried) else event.epoch for event in own[1:-1]]
            assert all(after in (0, before + 1) for before, after in zip([0, *epochs], epochs, strict=False))
            outcome = outcomes[cell.id]
            assert outcome.status == own[-1].status
            assert outcome.status in {"done", "failed", "diverged", "oom", "timeout"}, "none is left open"
            directory = run / "cells" / cell.slug
            assert (directory / "result" / "manifest.json").exists() == (outcome.status == "done")
            assert not (directory / "superseded").exists()
            assert len(trial.of(cell)) <= PLACED_AGAIN + 3
            tokens = [played.job.token for played in trial.of(cell)]
            assert len(set(tokens)) == len(tokens), "each with a claim of its own"
