"""A stand-in for CUDA graphs on the CPU: operations on tensors are recorded once and then replayed without Python.

As with a graph, what Python decided while recording is frozen, and only the contents of tensors that are there
when recording begins can differ from replay to replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        # Holding the results keeps their ids from being used again.
        self.calls.append((func, args, kwargs or {}, tree_flatten(results)[0]))
        return results

    def replay(self) -> None:
        """Do it all again; a recorded result stands for what took its place this time."""
        now: dict[int, Tensor] = {}

        def current(tensor: Tensor) -> Tensor:
            return now.get(id(tensor), tensor)

        with torch.no_grad():
            for func, args, kwargs, recorded in self.calls:
                args, kwargs = tree_map_only(Tensor, current, (args, kwargs))
                results = tree_flatten(func(*args, **kwargs))[0]
                for old, new in zip(recorded, results, strict=True):
                    if isinstance(old, Tensor):
                        now[id(old)] = new


def recorded(rehearse: Callable[[], None], body: Callable[[], None]) -> Callable[[], None]:
    """``body``, run once to record it, after a rehearsal."""
    rehearse()
    with Recorder() as recorder:
        body()
    return recorder.replay
