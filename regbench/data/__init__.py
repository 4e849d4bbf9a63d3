"""Data sets: what one is, the bundled ones, how their images are split, and batches on a device.

Only :mod:`regbench.data.batches` needs torch.
"""

from regbench.data.base import Dataset, DatasetOptions, Images, ImageShape, Sizes
from regbench.data.checksums import fingerprint_of
from regbench.data.location import data_root
from regbench.data.split import Split, hashed_test, prepare, split_sizes

__all__ = [
    "Dataset",
    "DatasetOptions",
    "ImageShape",
    "Images",
    "Sizes",
    "Split",
    "data_root",
    "fingerprint_of",
    "hashed_test",
    "prepare",
    "split_sizes",
]
