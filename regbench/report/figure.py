"""What a figure is: something drawn from the results of a run, without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import matplotlib.figure

    from regbench.store.records import Run


class FigureOptions(BaseModel):
    """Base of a figure's options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SelectionOptions(FigureOptions):
    """Base of the options of a figure that can be limited to some methods and data sets."""

    methods: tuple[str, ...] = Field((), description="labels of the methods, in this order; empty: all")
    datasets: tuple[str, ...] = Field((), description="labels of the data sets, in this order; empty: all")


@dataclass(frozen=True, slots=True)
class Drawing:
    """One finished picture."""

    name: str
    """File name without extension: lower case, digits, hyphens."""
    figure: matplotlib.figure.Figure
    caption: str
    """What is shown, of which cells, and how it was chosen: enough to go under the figure in a paper."""


class Figure(ABC):
    """A figure that suites can name under ``[[figures]]``. ``kind`` in the suite is ``name`` here."""

    name: ClassVar[str]
    title: ClassVar[str] = ""
    """Heading in the report; empty: made from ``name``."""
    Options: ClassVar[type[FigureOptions]] = FigureOptions
    selective: ClassVar[bool] = False
    """Whether the options are :class:`SelectionOptions`: a suite's labels in them are checked when it is read."""

    options: Any

    def __init__(self, options: FigureOptions | None = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def draw(self, run: Run) -> Iterable[Drawing]:
        """Draw, as a rule once per data set. Yield nothing where the run has nothing to show."""
