"""The ``[tuning]`` table: the same number of trials for every method, and what they may try."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from regbench.api import Search
from regbench.suite.table import Table

MOST_TRIALS = 1000


class SharedSearch(Table):
    """What is searched for every method alike, so that one without options has a search space, too."""

    lr: Search | None = None
    """Adam's learning rate."""
    batch_size: Search | None = None
    """Images per batch, whole numbers."""

    def given(self) -> Iterator[tuple[str, Search]]:
        """The settings that are searched, each with where."""
        for name in type(self).model_fields:
            search = getattr(self, name)
            if search is not None:
                yield name, search


class Tuning(Table):
    """Select settings on the held-out images before the cells are run, with the same budget for every method."""

    trials: int = Field(ge=1, le=MOST_TRIALS)
    """How many trials each method gets on each data set."""
    metric: str = Field("mse", min_length=1)
    """Which of the suite's metrics selects, at the mean code and on the held-out images."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Decides what is tried, and from which initial weights; no cell of the suite shares them."""
    epochs: int | None = Field(None, ge=1, le=1_000_000)
    """Epochs of a trial, the warm-up included; without it as many as the cells have."""
    options: bool = False
    """Whether the methods' own search spaces are searched, too: as a rule how hard a method regularizes."""
    search: SharedSearch = SharedSearch()
    """Settings of `[training]` that are searched, for every method alike."""
