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
    """As a share of a method's mean: 0.05 is 5%. The mean must be positive; its spread over seeds is counted."""
    absolute: float | None = Field(None, gt=0)
    """In units of the metric."""
    of: str | None = None
    """Label of the method whose mean `relative` is a share of; without one: the reference, or the step's first."""

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
    """Each method matches each reference within a margin (two one-sided tests).

    Refuted where one of them is shown to be further away than the margin, to a side that is claimed.
    """

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
    """Each method differs from each reference.

    Refuted where one of them is shown to differ in the other direction; so `either` is never refuted.
    """

    kind: Literal["difference"]
    methods: Labels = Field(min_length=1)
    """Labels of the methods."""
    references: Labels = Field(min_length=1)
    """Labels of the methods that they differ from."""
    direction: Literal["better", "worse", "either"] = "better"
    """In which direction."""


class Ordering(BaseClaim):
    """Each method is better than the next one of the list.

    Refuted where one of them is shown to be worse than the next.
    """

    kind: Literal["ordering"]
    methods: Labels = Field(min_length=2)
    """Labels, the best first."""


class Monotone(BaseClaim):
    """From one method to the next the metric goes one way or stands still, and overall it does go.

    Without a margin every step must go the claimed way. Refuted where a step, or the whole way, is shown to go the
    other way by more than that.
    """

    kind: Literal["monotone"]
    methods: Labels = Field(min_length=2)
    """Labels, in the order of what is varied."""
    direction: Literal["improves", "worsens"] = "improves"
    """Which way."""
    margin: Margin | None = None
    """How far a step may go the wrong way and still count as standing still; from first to last it never may."""


Claim = Annotated[Equivalence | Difference | Ordering | Monotone, Field(discriminator="kind")]

KINDS: dict[str, type[Equivalence] | type[Difference] | type[Ordering] | type[Monotone]] = {
    "equivalence": Equivalence,
    "difference": Difference,
    "ordering": Ordering,
    "monotone": Monotone,
}
