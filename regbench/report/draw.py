"""Drawing the figures of a run: find each kind, draw it, save it; one that fails stops nobody else."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from pydantic import ValidationError

from regbench.errors import PluginError, RegbenchError, StoreError
from regbench.report.bundled import regbench_figures
from regbench.report.figure import Drawing, Figure
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


def draw_figures(
    run: Run, directory: Path, *, plugins: Sequence[Path | str] = (), progress: Progress = lambda _: None
) -> tuple[list[Picture], list[FigureFailure]]:
    """Draw what the suite names under ``[[figures]]``, or all bundled figures where it names none.

    The pictures are saved in ``directory``, which must exist; ``plugins`` are Python files with more figures.
    """
    known = _Known(plugins)
    requests = run.suite["figures"] or [{"kind": kind} for kind in known.bundled]
    pictures: list[Picture] = []
    failures: list[FigureFailure] = []
    for request in requests:
        kind = str(request["kind"])
        progress(f"drawing {kind}")
        try:
            with paper():
                for picture in _draw(
                    known.find(kind), request.get("options") or {}, run, directory, pictures
                ):
                    pictures.append(picture)
        except RegbenchError as error:
            failures.append(FigureFailure(kind, str(error), error.hint or "", error.exit_code))
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            failures.append(_failure(known, kind, error))
    return pictures, failures


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


def _draw(
    cls: type[Figure], options: Mapping[str, Any], run: Run, directory: Path, drawn: Sequence[Picture]
) -> Iterator[Picture]:
    figure = cls(_options(cls, options))
    title = cls.title or cls.name.replace("-", " ").capitalize()
    for drawing in figure.draw(run):
        _check(cls, drawing)
        name = _free(drawing.name, {picture.name for picture in drawn})
        try:
            png, pdf, svg = save(drawing.figure, directory / name)
        except OSError as error:
            raise StoreError(
                f"cannot write {directory / name}: {error.strerror or error}",
                hint="choose another place with --out",
            ) from error
        _close(drawing.figure)
        yield Picture(name, cls.name, title, drawing.caption, png, pdf, svg)


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
