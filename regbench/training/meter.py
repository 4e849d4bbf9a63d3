"""Means and maxima over an epoch, kept on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regbench.errors import PluginError

Key = tuple[str, str]
"""Group and name of a recorded value."""


class Meter:
    """Sums and maxima of 0-d tensors: nothing waits for the device before ``read``.

    The buffers stay where they are from the first batch on, so that a CUDA graph can add to them. One batch is
    any number of ``add`` and ``maximum``, then ``end_batch``; every batch must record the same names.
    """

    def __init__(self) -> None:
        self._pending: tuple[dict[Key, Tensor], dict[Key, Tensor]] = ({}, {})
        self._names: tuple[tuple[Key, ...], tuple[Key, ...]] | None = None
        self._sums: Tensor
        """The number of batches, then the sums."""
        self._maxima: Tensor
        self._one: Tensor

    def add(self, group: str, values: Mapping[str, Tensor]) -> None:
        """Values of which the epoch's mean is wanted."""
        self._pending[0].update({(group, name): value.detach().float() for name, value in values.items()})

    def maximum(self, group: str, values: Mapping[str, Tensor]) -> None:
        """Values of which the epoch's maximum is wanted."""
        self._pending[1].update({(group, name): value.detach().float() for name, value in values.items()})

    def end_batch(self) -> None:
        """Take in what the batch has recorded. Raises ``PluginError`` for other names than in the first batch."""
        means, maxima = self._pending
        self._pending = ({}, {})
        names = (tuple(means), tuple(maxima))
        if self._names is None:
            self._begin(names, next(iter((*means.values(), *maxima.values()))).device)
        elif names != self._names:
            known, new = ({key for part in both for key in part} for both in (self._names, names))
            odd = ", ".join(sorted(name for _, name in known ^ new)) or "their order"
            raise PluginError(
                f"steps() recorded other names than in the first batch: {odd}",
                hint="every batch must log the same names in the same order",
            )
        self._sums += torch.stack([self._one, *means.values()])
        if maxima:
            torch.maximum(self._maxima, torch.stack(list(maxima.values())), out=self._maxima)

    def _begin(self, names: tuple[tuple[Key, ...], tuple[Key, ...]], device: torch.device) -> None:
        self._names = names
        self._one = torch.ones((), device=device)
        self._sums = torch.zeros(1 + len(names[0]), device=device)
        self._maxima = torch.full((len(names[1]),), -torch.inf, device=device)

    def reset(self) -> None:
        """Start a new epoch in the same buffers."""
        if self._names is not None:
            self._sums.zero_()
            self._maxima.fill_(-torch.inf)

    def read(self) -> dict[str, dict[str, float]]:
        """Means and maxima by group since the last ``reset``; one transfer from the device."""
        if self._names is None:
            return {}
        count, *sums = torch.cat([self._sums, self._maxima]).tolist()
        if not count:
            return {}
        means, maxima = sums[: len(self._names[0])], sums[len(self._names[0]) :]
        read: dict[str, dict[str, float]] = {}
        for (group, name), total in zip(self._names[0], means, strict=True):
            read.setdefault(group, {})[name] = total / count
        for (group, name), value in zip(self._names[1], maxima, strict=True):
            read.setdefault(group, {})[name] = value
        return read

    def state_dict(self) -> dict[str, Any]:
        """Copies of what has been recorded since the last ``reset``; empty before the first batch."""
        if self._names is None:
            return {}
        names = [[list(key) for key in part] for part in self._names]
        return {"names": names, "sums": self._sums.clone(), "maxima": self._maxima.clone()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from there, in the buffers that are in use. Raises ``ValueError`` for other names than theirs."""
        if not state:
            return
        means, maxima = (tuple((group, name) for group, name in part) for part in state["names"])
        if self._names is None:
            self._begin((means, maxima), device)
        elif self._names != (means, maxima):
            raise ValueError(f"recorded {state['names']}, expected {self._names}")
        self._sums.copy_(state["sums"])
        self._maxima.copy_(state["maxima"])
