"""Drawing the figures of a run: find each kind, draw it, save it; one that fails stops nobody else.

Each request of the suite is drawn in a directory of its own, here or in another process, and its pictures are then
put where they belong in the suite's order: names do not depend on who was first.
"""

from __future__ import annotations

import gc
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure as Canvas
from pydantic import ValidationError

from regbench.errors import PluginError, RegbenchError, StoreError
from regbench.report.bundled import regbench_figures
from regbench.report.figure import Drawing, Figure
from regbench.report.processes import context
from regbench.report.style import paper, save
from regbench.store.records import Run

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

Progress = Callable[[str], None]
"""Is told, in words, what is being done."""


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn and saved."""

    name: str
    kind: str
    title: str
    caption: str
    png: Path
    pdf: Path
    svg: Path


@dataclass(frozen=True)
class FigureFailure:
    """A figure that could not be drawn, or not all of it."""

    kind: str
    reason: str
    hint: str = ""
    exit_code: int = 1
    traceback: str = ""
    """Empty where the reason says it all."""


Drawn = tuple[list[Picture], list[FigureFailure]]
Numbered = tuple[int, Mapping[str, Any]]
"""A request of the suite and its place there."""

OF_HISTORIES = ("curves", "clusters")
"""Kinds that read the histories of all cells, most of what a report reads: one process draws them all, first."""
COLLECT_AFTER = 100_000
"""Objects after which a process that only draws looks for garbage: a long history alone is thousands."""
LONG, SHORT = ("tsne",), ("synthesis", "interpolations")
"""Kinds that are begun early, and kinds kept for the end, so that processes end at about the same time."""


def draw_figures(
    run: Run,
    directory: Path,
    *,
    plugins: Sequence[Path | str] = (),
    progress: Progress = lambda _: None,
    processes: int = 1,
) -> Drawn:
    """Draw what the suite names under ``[[figures]]``, or all bundled figures where it names none.

    The pictures are saved in ``directory``, which must exist; ``plugins`` are Python files with more figures.
    ``processes``: how many draw side by side; with 1 all is drawn in this one.
    """
    with FigureJob(run, directory, plugins=plugins, progress=progress, processes=processes) as job:
        return job.finish()


class FigureJob:
    """The same in two parts: ``with`` starts the other processes, if any; ``finish`` waits for what they draw."""

    def __init__(
        self, run: Run, directory: Path, *, plugins: Sequence[Path | str], progress: Progress, processes: int
    ) -> None:
        self.run, self.directory, self.plugins = run, directory, tuple(plugins)
        self.progress, self.processes = progress, processes
        self.requests: list[Mapping[str, Any]] = run.suite["figures"] or [
            {"kind": cls.name} for cls in regbench_figures()
        ]
        self._futures: dict[int, Future[dict[int, Drawn]]] = {}

    def __enter__(self) -> FigureJob:
        with writing(self.directory), ExitStack() as stack:
            place = stack.enter_context(TemporaryDirectory(dir=self.directory, prefix=".drawing-"))
            self._drawer = _Drawer(self.run, self.directory, Path(place), self.plugins)
            if self.processes > 1:
                pool = ProcessPoolExecutor(self.processes, context(), _start, (self._drawer,))
                stack.callback(pool.shutdown, cancel_futures=True)
                for batch in _batches(self.requests):
                    self._futures |= dict.fromkeys(dict(batch), pool.submit(_work, batch))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def finish(self) -> Drawn:
        pictures: list[Picture] = []
        failures: list[FigureFailure] = []
        for drawn, failed in self._in_turn():
            pictures += _placed(drawn, self.directory, {picture.name for picture in pictures})
            failures += failed
        return pictures, failures

    def _in_turn(self) -> Iterator[Drawn]:
        """What came of each request, in order."""
        done = 0
        if self._futures:
            kinds = ", ".join(dict.fromkeys(str(request["kind"]) for request in self.requests))
            self.progress(f"drawing {kinds} in {self.processes} processes")
            try:
                for number in range(len(self.requests)):
                    yield self._futures[number].result()[number]
                    done += 1
            except BrokenProcessPool:
                self.progress("a process that draws figures has died, perhaps of too little memory")
        for number, request in list(enumerate(self.requests))[done:]:
            self.progress(f"drawing {request['kind']}")
            yield self._drawer.draw(number, request)


def _batches(requests: Sequence[Mapping[str, Any]]) -> list[list[Numbered]]:
    """What goes to one process at a time, in the order of starting."""

    def rank(batch: list[Numbered]) -> int:
        kind = batch[0][1]["kind"]
        return 0 if kind in OF_HISTORIES else 1 if kind in LONG else 3 if kind in SHORT else 2

    numbered = [*enumerate(requests)]
    together = [(number, request) for number, request in numbered if request["kind"] in OF_HISTORIES]
    alone = [[(number, request)] for number, request in numbered if request["kind"] not in OF_HISTORIES]
    return sorted([*([together] if together else []), *alone], key=rank)


_drawer: _Drawer
"""Of a process that only draws."""


def _start(drawer: _Drawer) -> None:
    global _drawer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the first process's to report
    gc.freeze()  # what was imported stays
    gc.set_threshold(COLLECT_AFTER)
    _drawer = drawer


def _work(batch: Sequence[Numbered]) -> dict[int, Drawn]:
    return {number: _drawer.draw(number, request) for number, request in batch}


@dataclass(frozen=True)
class _Drawer:
    """All that drawing a request takes; each goes to a directory of its own."""

    run: Run
    directory: Path
    """Where the pictures will stand."""
    place: Path
    plugins: tuple[Path | str, ...]

    @cached_property
    def known(self) -> _Known:
        return _Known(self.plugins)

    def draw(self, number: int, request: Mapping[str, Any]) -> Drawn:
        kind, place = str(request["kind"]), self.place / str(number)
        pictures: list[Picture] = []
        failures = []
        try:
            place.mkdir(exist_ok=True)
            with paper():
                for picture in self._draw(kind, request.get("options") or {}, place):
                    pictures.append(picture)
        except RegbenchError as error:
            failures.append(FigureFailure(kind, str(error), error.hint or "", error.exit_code))
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            failures.append(_failure(self.known, kind, error))
        return pictures, failures

    def _draw(self, kind: str, options: Mapping[str, Any], place: Path) -> Iterator[Picture]:
        cls = self.known.find(kind)
        figure = cls(_options(cls, options))
        title = cls.title or cls.name.replace("-", " ").capitalize()
        taken: set[str] = set()
        for drawing in figure.draw(self.run):
            _check(cls, drawing)
            name = _free(drawing.name, taken)
            taken.add(name)
            with writing(self.directory / name):
                png, pdf, svg = save(drawing.figure, place / name)
            _close(drawing.figure)
            yield Picture(name, cls.name, title, drawing.caption, png, pdf, svg)


def _placed(pictures: Sequence[Picture], directory: Path, taken: set[str]) -> Iterator[Picture]:
    """The pictures where they belong, under names that none before has."""
    for picture in pictures:
        name = _free(picture.name, taken)
        taken.add(name)
        places = [directory / f"{name}{file.suffix}" for file in (picture.png, picture.pdf, picture.svg)]
        with writing(directory / name):
            for file, place in zip((picture.png, picture.pdf, picture.svg), places, strict=True):
                file.replace(place)
        png, pdf, svg = places
        yield replace(picture, name=name, png=png, pdf=pdf, svg=svg)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What cannot be written inside the block is a ``StoreError`` that says what to do about a report."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}", hint="choose another place with --out"
        ) from error
    except StoreError as error:
        raise StoreError(str(error), hint="choose another place with --out") from error


class _Known:
    """Kinds of figures: the bundled ones at once, those of plugins only when one is asked for.

    Loading all plugins imports torch, which takes longer than most reports.
    """

    def __init__(self, plugins: Sequence[Path | str]) -> None:
        self.bundled = {cls.name: cls for cls in regbench_figures()}
        self.files = plugins

    def find(self, kind: str) -> type[Figure]:
        """Raises ``PluginError`` where there is no such figure, or its plugin is broken."""
        if kind in self.bundled:
            return self.bundled[kind]
        from regbench.plugins import registry

        found: type[Figure] = registry(self.files).figure(kind).cls
        return found


def _options(cls: type[Figure], options: Mapping[str, Any]) -> Any:
    try:
        return cls.Options(**options)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        raise PluginError(
            f"options of figure {cls.name!r}: {faults}", hint="mend [[figures]] in the suite and run it again"
        ) from error


def _check(cls: type[Figure], drawing: object) -> None:
    if not isinstance(drawing, Drawing) or not isinstance(drawing.figure, Canvas):
        raise PluginError(f"figure {cls.name!r} must yield regbench.Drawing with a matplotlib figure")
    if not NAME.fullmatch(drawing.name):
        raise PluginError(
            f"figure {cls.name!r} named a picture {drawing.name!r}; expected lower-case letters, digits and"
            " hyphens"
        )


def _free(name: str, taken: set[str]) -> str:
    """``name``, with a number where a picture has it already."""
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found


def _close(figure: Canvas) -> None:
    """Give back the memory of a figure that a plugin made with pyplot."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def _failure(known: _Known, kind: str, error: BaseException) -> FigureFailure:
    """A bug in a figure: of a plugin, or of ours."""
    return FigureFailure(
        kind,
        f"figure {kind!r} raised {type(error).__name__}: {error}",
        hint="the report shows the traceback",
        exit_code=RegbenchError.exit_code if kind in known.bundled else PluginError.exit_code,
        traceback="".join(traceback.format_exception(error)),
    )
