"""The parts of a report besides its tables and figures, in order."""

from __future__ import annotations

from regbench.report.section import Section
from regbench.store.records import Run


def build_sections(run: Run) -> list[Section]:
    """Every part that the run has something to say in."""
    makers: tuple[object, ...] = ()
    return [section for maker in makers if (section := maker(run)) is not None]  # type: ignore[operator]
