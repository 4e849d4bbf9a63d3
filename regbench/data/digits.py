"""Real data without a download: the digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from regbench.data.base import Dataset, Images, ImageShape, Sizes
from regbench.data.checksums import fingerprint_of
from regbench.data.split import hashed_test, hashed_test_count

COUNT = 1797
SIDE = 16


class Digits(Dataset):
    """1,797 handwritten digits of 8x8 pixels, enlarged to 16x16.

    Part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998). There is no official
    split; a fixed hashed 20% is the test split.
    """

    name = "digits"

    @property
    def shape(self) -> ImageShape:
        return ImageShape(channels=1, side=SIDE)

    def sizes(self, root: Path) -> Sizes:
        test = hashed_test_count(COUNT)
        return Sizes(train=COUNT - test, test=test)

    def fingerprint(self, root: Path) -> str:
        return fingerprint_of(self.load(root))

    def load(self, root: Path) -> Images:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # 17 grey levels, 0 to 16; bilinear, so that enlarging adds no hard edges.
        grey_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        large_NCHW = np.stack(
            [np.asarray(Image.fromarray(g).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for g in grey_NHW]
        )[:, None]
        labels = digits.target.astype(np.int64)
        test = hashed_test([str(index) for index in range(len(labels))])
        return Images(
            large_NCHW[~test], labels[~test], large_NCHW[test], labels[test], tuple(str(c) for c in range(10))
        )

    def check(self, root: Path) -> list[str]:
        return []

    def fetch(self, root: Path) -> None:
        """Nothing to do: scikit-learn brings the images along."""
