"""What a metric is: one number per test image; the result is their mean.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor


class Metric(ABC):
    """A metric that suites can name in ``metrics``. Built once per cell, without arguments."""

    name: ClassVar[str]
    """How suites name it, and its column in CSV files."""
    label: ClassVar[str]
    """How tables head its column."""
    better: ClassVar[Literal["lower", "higher"]]
    definition: ClassVar[str]
    """One sentence, printed under every table."""
    minimum_side: ClassVar[int] = 1
    """Smallest image side in pixels; a suite with smaller images is refused when it is planned."""

    @abstractmethod
    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        """One value per image, shape B. ``x`` is in [0, 1]; the reconstruction is ``logits.sigmoid()``.

        Both are float32, on the cell's device.
        """
