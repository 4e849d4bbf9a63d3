"""Claims: what a suite expects to find, stated in its file before any result.

Methods and data sets are named by their labels. "Better" follows the metric: lower MSE, higher SSIM.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from regbench.suite.table import Table

Labels = tuple[str, ...]


class Margin(Table):
    """How small a difference counts as none: either `relative` or `absolute`."""

    relative: float | None = Field(None, gt=0)
    """As a share of a method's mean: 0.05 is 5%."""
    absolute: float | None = Field(None, gt=0)
    """In units of the metric."""
    of: str | None = None
    """Label of the method whose mean `relative` is a share of; without one: the reference itself."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Margin:
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("expected either relative or absolute, like { relative = 0.05 }")
        if self.of is not None and self.relative is None:
            raise ValueError("`of` goes with relative only")
        return self


class BaseClaim(Table):
    """What all kinds of claims share."""

    statement: str = Field(min_length=1)
    """The claim in words, as the report prints it."""
    metric: str = "mse"
    """One of the suite's metrics, at the mean code."""
    datasets: Labels = ()
    """Labels of the data sets that it is claimed for; without them: all."""


class Equivalence(BaseClaim):
    """Each method matches each reference within a margin (two one-sided tests)."""

    kind: Literal["equivalence"]
    methods: Labels = Field(min_length=1)
    """Labels of the methods."""
    references: Labels = Field(min_length=1)
    """Labels of the methods that they match."""
    margin: Margin
    """The largest difference that counts as none."""
    direction: Literal["both", "not worse", "not better"] = "both"
    """`both`: neither better nor worse by more than the margin; otherwise only that side."""


class Difference(BaseClaim):
    """Each method differs from each reference."""

    kind: Literal["difference"]
    methods: Labels = Field(min_length=1)
    """Labels of the methods."""
    references: Labels = Field(min_length=1)
    """Labels of the methods that they differ from."""
    direction: Literal["better", "worse", "either"] = "better"
    """In which direction."""


class Ordering(BaseClaim):
    """Each method is better than the next one of the list."""

    kind: Literal["ordering"]
    methods: Labels = Field(min_length=2)
    """Labels, the best first."""


class Monotone(BaseClaim):
    """From the first method to the last the metric only ever goes one way."""

    kind: Literal["monotone"]
    methods: Labels = Field(min_length=2)
    """Labels, in the order of what is varied."""
    direction: Literal["improves", "worsens"] = "improves"
    """Which way; standing still is allowed at each step, but not over the whole list."""


Claim = Annotated[Equivalence | Difference | Ordering | Monotone, Field(discriminator="kind")]

KINDS: dict[str, type[Equivalence] | type[Difference] | type[Ordering] | type[Monotone]] = {
    "equivalence": Equivalence,
    "difference": Difference,
    "ordering": Ordering,
    "monotone": Monotone,
}
