"""The parts of a report besides its tables and figures, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regbench.report.across import across_section
from regbench.report.claims import JudgedClaim
from regbench.report.claims_section import claims_section
from regbench.report.section import Section
from regbench.report.tradeoff import tradeoff_section
from regbench.report.tuning import tuning_section
from regbench.store.records import Run

MAKERS: tuple[Callable[[Run], Section | None], ...] = (tradeoff_section, across_section, tuning_section)
"""Each makes one part after the claims, or ``None`` where the run has nothing to say in it."""


def build_sections(run: Run, claims: Sequence[JudgedClaim]) -> list[Section]:
    """Every part that the run has something to say in; ``claims`` are its own."""
    made = [claims_section(claims), *(maker(run) for maker in MAKERS)]
    return [section for section in made if section is not None]
