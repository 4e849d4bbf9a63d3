"""Saving a running cell, and going on with it in another process."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.store.checkpoints import Checkpoint, CheckpointShelf
from regbench.store.provenance import device_name
from regbench.store.writer import AttemptWriter
from regbench.suite.cells import KEY_SCHEMA, NUMERICS, CellSpec
from regbench.training.trainer import Trainer


@dataclass
class Story:
    """What has happened to a cell so far, over all attempts that its state comes from."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the history; one for each whole epoch."""
    seconds: float = 0.0
    """Of earlier attempts, as far as their work is in the state."""
    peak_memory: int = 0
    resumed: list[dict[str, Any]] = field(default_factory=list)
    """``epoch``, ``batch`` and ``attempt`` of each checkpoint that was gone on from; ``note`` where hardware or
    software was another one."""


class CellCheckpoints:
    """The checkpoints of one attempt at a cell."""

    def __init__(
        self, spec: CellSpec, attempt: AttemptWriter, policy: CheckpointPolicy, device: torch.device
    ) -> None:
        self._attempt = attempt
        self._policy = policy
        self._device = device
        stamp = {"cell": spec.id, "schema": KEY_SCHEMA, "numerics": NUMERICS}
        self._shelf = CheckpointShelf(attempt.cell.directory, stamp)
        self._begun = self._clock = time.monotonic()
        self._saved = (0, 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found unusable, and why."""
        return tuple(self._shelf.notes)

    def due(self, story: Story) -> bool:
        """Whether the interval is over."""
        epochs = len(story.rows) - self._saved[0]
        return self._policy.due(seconds=time.monotonic() - self._clock, epochs=epochs)

    def save(self, trainer: Trainer, story: Story) -> None:
        """Save where the training stands, unless that has been done. Raises ``StoreError``."""
        position = (len(story.rows), trainer.batch)
        if position == self._saved:
            return
        self._attempt.cell.claim.check()
        facts = {
            "attempt": self._attempt.directory.name,
            "environment": self._environment(trainer),
            "rows": story.rows,
            "seconds": self.seconds(story),
            "peak_memory": story.peak_memory,
            "resumed": story.resumed,
        }
        state = io.BytesIO()
        torch.save(tree_map_only(Tensor, Tensor.cpu, trainer.state_dict()), state)
        self._shelf.save(self._attempt.directory, *position, facts, state.getbuffer())
        self._saved, self._clock = position, time.monotonic()

    def restore(self, trainer: Trainer, anew: Callable[[], Trainer]) -> tuple[Trainer, Story]:
        """The training as the newest checkpoint has it, or ``trainer`` as it is where there is none to use.

        ``anew`` makes another such trainer: one in which a checkpoint was loaded only half is of no use.
        """
        for found in self._shelf.newest():
            try:
                story = self._load(found, trainer)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a file can do to torch
                reason = str(error).strip().partition("\n")[0]
                self._shelf.refuse(found, f"cannot be loaded: {type(error).__name__}: {reason}")
                trainer = anew()
                continue
            self._attempt.resumed(story.rows, trainer.batch, self.notes)
            self._saved = (len(story.rows), trainer.batch)
            return trainer, story
        if self.notes:
            self._attempt.resumed((), 0, self.notes)
        return trainer, Story()

    def clear(self) -> None:
        """Remove the checkpoints of all attempts."""
        self._shelf.clear()

    def seconds(self, story: Story) -> float:
        """Wall time of all work that is in the state."""
        return story.seconds + time.monotonic() - self._begun

    def _load(self, found: Checkpoint, trainer: Trainer) -> Story:
        facts = found.facts
        # Arbitrary code is refused; tensors go to the device as they are copied into those of the trainer.
        state = torch.load(io.BytesIO(found.state), weights_only=True, map_location="cpu")
        trainer.load_state_dict(state)
        position = (len(facts["rows"]), trainer.batch)
        if position != (facts["epoch"], facts["batch"]):
            raise ValueError(f"its state is that of {position}")
        here = self._environment(trainer)
        differing = [
            f"{name} {value} -> {here.get(name)}"
            for name, value in facts["environment"].items()
            if here.get(name) != value
        ]
        entry = {"epoch": facts["epoch"], "batch": facts["batch"], "attempt": facts["attempt"]}
        if differing:
            entry["note"] = "; ".join(differing)
        return Story(facts["rows"], facts["seconds"], facts["peak_memory"], [*facts["resumed"], entry])

    def _environment(self, trainer: Trainer) -> dict[str, Any]:
        """What the bits of a training depend on besides the cell."""
        return {
            "torch": str(torch.__version__),
            "device": self._device.type,
            "device_name": device_name(self._device),
            "threads": torch.get_num_threads(),
            "launch": trainer.settings.launch.title,
        }
