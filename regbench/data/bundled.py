"""The data sets that come with regbench, offered through the same hook as anybody's."""

from __future__ import annotations

from regbench.data.base import Dataset
from regbench.data.digits import Digits
from regbench.data.folder import Folder
from regbench.data.npz import Npz
from regbench.data.torchvision_sets import CIFAR10, CIFAR100, KMNIST, MNIST, SVHN, FashionMNIST
from regbench.hookspecs import hookimpl


@hookimpl
def regbench_datasets() -> list[type[Dataset]]:
    return [Digits, MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100, SVHN, Folder, Npz]
