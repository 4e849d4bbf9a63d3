"""Limits, stops and faults of the store, whatever an engine reports; no processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from regbench.engines.base import Happening, Started, Waiting
from regbench.errors import EnvironmentFault, PluginError, StoreError
from regbench.execution import scheduler as module
from regbench.execution.events import CellFinished, CellStarted
from regbench.execution.interrupt import Stop
from regbench.execution.planning import PlannedCell
from regbench.execution.worker import hang_file
from tests.execution.simulated import Play, Played, Steps, Trial, done, first_then


def test_a_frozen_job_is_ended_after_its_limit_whatever_it_has_begun(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def frozen(played: Played) -> Steps:
        yield Started(played.handle, "here")
        if played.job.slug == cells[0].slug:
            played.begin()
        while True:
            yield None

    trial = Trial(tmp_path, frozen, limit=0.05, grace=0.0)
    outcomes = trial.run(cells[:2])
    assert {outcome.status for outcome in outcomes.values()} == {"timeout"}
    assert trial.statuses(cells[0]) == trial.statuses(cells[1]) == ["timeout"]
    assert [played.cancelled for played in trial.engine.given] == [0.0, 0.0]


def test_a_job_that_is_ended_from_outside_leaves_its_traceback_too(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def frozen(played: Played) -> Steps:
        played.begin()
        file = hang_file(tmp_path, played.job.token)
        file.parent.mkdir()
        file.write_text("it hung there")
        while True:
            yield None

    trial = Trial(tmp_path, frozen, limit=0.05, grace=0.0)
    assert trial.run(cells[:1])[cells[0].id].status == "timeout"
    (log,) = (tmp_path / "cells" / cells[0].slug).glob("attempts/*/log.txt")
    assert "it hung there" in log.read_text()
    assert list((tmp_path / "workers").iterdir()) == []


def test_the_limit_of_a_second_attempt_counts_from_its_own_begin(
    tmp_path: Path, cells: tuple[PlannedCell, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def slow(end: Play) -> Play:
        def play(played: Played) -> Steps:
            yield Started(played.handle, "here")
            played.begin()
            for _ in range(3):
                now[0] += 20
                yield None
            yield from end(played)

        return play

    def dies(played: Played) -> Steps:
        yield played.lost()

    def finishes(played: Played) -> Steps:
        played.commit()
        yield played.answers()

    trial = Trial(tmp_path, first_then(slow(dies), slow(finishes)), limit=65.0, grace=0.0)
    assert trial.run(cells[:1])[cells[0].id].status == "done"


def test_time_in_the_queue_of_an_engine_that_begins_a_job_again_does_not_count(
    tmp_path: Path, cells: tuple[PlannedCell, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def requeued(played: Played) -> Steps:
        yield Started(played.handle, "one node")
        played.begin()
        played.row(1)
        yield None
        yield Waiting(played.handle)
        for _ in range(3):
            now[0] += 1000
            yield None
        yield from done(played)

    trial = Trial(tmp_path, requeued, limit=65.0, grace=0.0)
    assert trial.run(cells[:1])[cells[0].id].status == "done"
    assert trial.engine.given[0].cancelled is None


def test_a_job_that_its_engine_will_begin_again_is_not_waited_for_when_all_stops(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial: Trial

    def requeued(played: Played) -> Steps:
        yield Started(played.handle, "one node")
        attempt = played.begin()
        yield None
        attempt.end("interrupted", "stopped by a signal")
        yield Waiting(played.handle)
        trial.signal.ask("epoch")
        while True:
            yield None

    trial = Trial(tmp_path, requeued)
    with pytest.raises(Stop):
        trial.run(cells[:1])
    assert [played.cancelled for played in trial.engine.given] == [0.0]
    assert [event.status for event in trial.told(CellFinished)] == ["interrupted"]


def test_a_wish_to_stop_reaches_the_jobs_and_what_has_not_begun_leaves_no_trace(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial: Trial

    def works(played: Played) -> Steps:
        if played.job.slug != cells[0].slug:
            while True:
                yield None  # in a queue
        attempt = played.begin()
        played.row(1)
        yield None
        trial.signal.ask("epoch")
        while played.writer.claim.stop_level() != "epoch":
            yield None
        played.row(2)
        assert played.cancelled is None, "an epoch may take its time"
        attempt.end("interrupted", "stopped by a signal")
        yield played.answers("stopped")

    trial = Trial(tmp_path, works)
    with pytest.raises(Stop) as stopped:
        trial.run(cells)
    assert stopped.value.exit_code == 130
    assert [(event.cell, event.status) for event in trial.told(CellFinished)] == [
        (cells[0].spec.title, "interrupted")
    ]
    assert len(trial.told(CellStarted)) == 1
    assert trial.statuses(cells[0]) == ["interrupted"]
    assert not (tmp_path / "cells" / cells[1].slug / "attempts").exists()
    assert not (tmp_path / "cells" / cells[2].slug).exists()


def test_a_stop_at_the_next_batch_goes_through_the_engine_with_a_grace(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial: Trial

    def works(played: Played) -> Steps:
        played.begin()
        yield None
        trial.signal.ask("batch", 15)
        while True:
            yield None

    trial = Trial(tmp_path, works)
    with pytest.raises(Stop) as stopped:
        trial.run(cells)
    assert stopped.value.exit_code == 143
    assert [played.cancelled for played in trial.engine.given] == [module.STOP_GRACE_S] * 2
    assert [event.status for event in trial.told(CellFinished)] == ["interrupted"] * 2


def test_a_second_signal_ends_all_at_once_and_the_store_says_so(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def works(played: Played) -> Steps:
        played.begin()
        yield None
        raise Stop(2)  # as the handler does, wherever the scheduler is

    trial = Trial(tmp_path, works)
    with pytest.raises(Stop):
        trial.run(cells)
    assert [event.status for event in trial.told(CellFinished)] == ["interrupted"] * 2
    assert trial.statuses(cells[0]) == trial.statuses(cells[1]) == ["interrupted"]
    assert [played.cancelled for played in trial.engine.given] == [0.0, 0.0]


def test_a_cell_that_waits_for_its_second_try_is_told_of_when_all_stops(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    trial: Trial

    def works(played: Played) -> Steps:
        played.begin()
        yield None
        if played.job.slug == cells[0].slug:
            yield played.lost()
        yield None
        trial.signal.ask("epoch")
        yield None
        yield from done(played)

    trial = Trial(tmp_path, works)
    with pytest.raises(Stop):
        trial.run(cells[:2])
    assert Counter(event.cell for event in trial.told(CellFinished)) == Counter(
        event.cell for event in trial.told(CellStarted)
    )
    assert trial.told(CellFinished)[0].status == "interrupted"


def test_a_full_disk_stops_all_and_the_others_are_asked_to_save(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def works(played: Played) -> Steps:
        played.begin()
        yield None
        if played.job.slug == cells[0].slug:
            yield played.answers("environment", "cannot write x: No space left on device")
        while True:
            yield None

    trial = Trial(tmp_path, works)
    with pytest.raises(StoreError, match="No space left"):
        trial.run(cells)
    assert [event.status for event in trial.told(CellFinished)] == ["failed", "interrupted"]
    assert len(trial.engine.given) == 2, "nothing further is begun"


def test_where_the_store_fails_here_the_others_save_themselves_first(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    """A job dies, and that cannot be written down."""

    def play(played: Played) -> Steps:
        played.begin()
        yield None
        if played.job.slug == cells[0].slug:
            claim = played.writer.claim.path
            claim.unlink()
            claim.mkdir()
            yield played.lost()
        while True:
            yield None

    trial = Trial(tmp_path, play)
    with pytest.raises(StoreError, match=r"cannot write .*claim\.json"):
        trial.run(cells)
    assert trial.engine.given[1].cancelled == module.STOP_GRACE_S
    assert [event.status for event in trial.told(CellFinished)] == ["failed", "interrupted"]


def test_where_an_engine_takes_no_more_the_others_save_themselves_first(
    tmp_path: Path, cells: tuple[PlannedCell, ...]
) -> None:
    def play(played: Played) -> Steps:
        if played.job.slug == cells[0].slug:
            yield from done(played)
        played.begin()
        while True:
            yield None

    trial = Trial(tmp_path, play)
    submit, calls = trial.engine.submit, Counter[str]()

    def full(jobs: Any) -> list[str]:
        calls["submit"] += 1
        if calls["submit"] > 1:
            raise EnvironmentFault("the queue takes no more jobs")
        return submit(jobs)

    trial.engine.submit = full  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFault, match="takes no more"):
        trial.run(cells)
    assert [played.cancelled for played in trial.engine.given] == [None, module.STOP_GRACE_S]
    assert [event.status for event in trial.told(CellFinished)] == ["done", "interrupted"]


def test_damage_in_the_store_costs_its_own_cell(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    def torn(played: Played) -> Steps:
        attempt = played.begin()
        (attempt.directory / "outcome.json").write_text("{")
        yield played.answers()

    trial = Trial(tmp_path, lambda played: torn(played) if played.job.slug == cells[0].slug else done(played))
    outcomes = trial.run(cells)
    assert [outcomes[cell.id].status for cell in cells] == ["failed", "done", "done", "done"]
    assert "outcome.json is not valid JSON" in outcomes[cells[0].id].reason


def test_an_engine_that_raises_is_named(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    trial = Trial(tmp_path, done)

    def broken(seconds: float) -> list[Happening]:
        raise ZeroDivisionError("oh")

    trial.engine.poll = broken  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="the engine 'simulated' failed: ZeroDivisionError: oh"):
        trial.run(cells)


def test_an_end_that_is_seen_late_is_waited_for(tmp_path: Path, cells: tuple[PlannedCell, ...]) -> None:
    """A network file system shows another machine's files after a while."""
    late: list[Played] = []

    def hides(played: Played) -> Steps:
        if played.job.slug == cells[0].slug:
            late.append(played)
            yield played.answers()
        yield None
        yield None
        late[0].begin()
        late[0].commit()
        yield from done(played)

    trial = Trial(tmp_path, hides)
    trial.scheduler.late_seconds = 60.0
    assert {outcome.status for outcome in trial.run(cells[:2]).values()} == {"done"}
    never = Trial(tmp_path / "never", lambda played: iter([played.answers()]))
    outcome = never.run(cells[:1])[cells[0].id]
    assert (outcome.status, outcome.reason) == ("failed", "its worker left no outcome")
