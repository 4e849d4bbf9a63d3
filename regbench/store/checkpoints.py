"""The checkpoints of one cell: files whose every bit is checked before anything in them is looked at.

``attempts/<n>-<token>/checkpoints/<epoch>-<batch>.ckpt``: a line that names the format, a line of JSON (the facts),
the state as bytes that mean nothing here, and the SHA-256 of all that comes before it. Only the last two of a cell
are kept. One that cannot be used is set aside with ``.unusable`` added to its name, and said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from regbench.errors import StoreError
from regbench.store.files import storage_errors, write_bytes
from regbench.store.records import attempt_number

KEPT = 2
UNUSABLE = ".unusable"
_FORMAT = b"regbench checkpoint 1\n"
_NAME = re.compile(r"([0-9]{1,18})-([0-9]{1,18})\.ckpt")
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that has been read and is whole."""

    path: Path
    facts: dict[str, Any]
    """The stamp, ``epoch`` (whole epochs that are done), ``batch`` (batches of the next one), and the caller's own."""
    state: bytes


class CheckpointShelf:
    """All checkpoints of a cell, whichever attempt has written them."""

    def __init__(self, cell: Path, stamp: Mapping[str, Any]) -> None:
        """``stamp``: what every checkpoint of this cell must say of itself."""
        self.cell = cell
        self.stamp = dict(stamp)
        self.notes: list[str] = []
        """What was found unusable, and why."""

    def save(
        self, attempt: Path, epoch: int, batch: int, facts: Mapping[str, Any], state: bytes | memoryview
    ) -> Path:
        """Write one, and then remove all but the last two of the cell.

        Raises ``StoreError`` where it cannot be written; those that are there stay.
        """
        directory = attempt / "checkpoints"
        with storage_errors(directory):
            directory.mkdir(exist_ok=True)
        if directory.is_symlink():
            raise StoreError(
                f"{directory} is a link", hint="remove it, and run the same command again to go on"
            )
        header = {**facts, **self.stamp, "epoch": epoch, "batch": batch}
        parts = (_FORMAT, json.dumps(header, allow_nan=False).encode(), b"\n", state)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        path = directory / f"{epoch:06d}-{batch:06d}.ckpt"
        write_bytes(path, b"".join((*parts, digest.digest())))
        for old in self._files()[KEPT:]:
            with suppress(OSError):  # it only takes space
                old.unlink()
        return path

    def reached(self) -> tuple[int, int]:
        """Whole epochs, and batches of the next one, of the furthest by its name; (0, 0) where there is none."""
        places = [_NAME.fullmatch(path.name) for path in self._files()]
        return max(((int(place[1]), int(place[2])) for place in places if place), default=(0, 0))

    def newest(self) -> Iterator[Checkpoint]:
        """Those that are whole and this cell's, the latest attempt's latest first; others are set aside."""
        for path in self._files(self.notes):
            try:
                content = _read(path)
            except OSError as error:
                self.notes.append(
                    f"{self._name(path)} cannot be read: {error.strerror or error}; left where it is"
                )
                continue
            try:
                yield self._opened(path, content)
            except ValueError as error:
                self._set_aside(path, str(error))

    def refuse(self, checkpoint: Checkpoint, why: str) -> None:
        """Set one aside that was whole, but is of no use."""
        self._set_aside(checkpoint.path, why)

    def clear(self) -> None:
        """Remove all checkpoints, and what interrupted writing has left of others. Unusable ones stay."""
        for directory in self._directories():
            for path in _children(directory):
                if _NAME.fullmatch(path.name) or (path.name.startswith(".") and path.suffix == ".tmp"):
                    with suppress(OSError):
                        path.unlink()
            with suppress(OSError):  # it holds something else
                directory.rmdir()

    def _opened(self, path: Path, content: bytes) -> Checkpoint:
        if not content:
            raise ValueError("is empty")
        if hashlib.sha256(memoryview(content)[:-_DIGEST]).digest() != content[-_DIGEST:]:
            raise ValueError("is truncated or altered: its SHA-256 does not fit")
        end = content.find(b"\n", len(_FORMAT), -_DIGEST)
        if not content.startswith(_FORMAT) or end < 0:
            raise ValueError("has another format than this version of regbench writes")
        try:
            facts = from_json(content[len(_FORMAT) : end])
        except ValueError as error:
            raise ValueError(f"has facts that cannot be read: {error}") from error
        if not isinstance(facts, dict):
            raise ValueError("has facts of another form")
        for name, expected in self.stamp.items():
            if facts.get(name) != expected:
                raise ValueError(
                    f"is not this cell's: its {name} is {facts.get(name)!r}, here it is {expected!r}"
                )
        return Checkpoint(path, facts, content[end + 1 : -_DIGEST])

    def _set_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + UNUSABLE)
        number = 1
        while os.path.lexists(aside):
            number += 1
            aside = path.with_name(f"{path.name}{UNUSABLE}-{number}")
        try:
            path.rename(aside)
            where = f"kept as {aside.name}"
        except OSError as error:
            where = f"left where it is ({error.strerror})"
        self.notes.append(f"{self._name(path)} {why}; {where}")

    def _name(self, path: Path) -> str:
        return f"checkpoint {path.relative_to(self.cell).as_posix()}"

    def _files(self, notes: list[str] | None = None) -> list[Path]:
        """All that are named like checkpoints, newest first; ``notes`` gets a line for each that is a link."""
        found: list[tuple[tuple[int, ...], Path]] = []
        for directory in self._directories(notes):
            for path in _children(directory):
                if (match := _NAME.fullmatch(path.name)) is None:
                    continue
                if path.is_symlink():
                    _note(notes, f"{self._name(path)} is a link, which is not followed")
                    continue
                found.append(((attempt_number(directory.parent), int(match[1]), int(match[2])), path))
        return [path for _, path in sorted(found, reverse=True)]

    def _directories(self, notes: list[str] | None = None) -> Iterator[Path]:
        for attempt in _children(self.cell / "attempts"):
            directory = attempt / "checkpoints"
            if not attempt_number(attempt) or not directory.is_dir():
                continue
            if attempt.is_symlink() or directory.is_symlink():
                _note(notes, f"{self._name(directory)} is reached by a link, which is not followed")
                continue
            yield directory


def _note(notes: list[str] | None, text: str) -> None:
    if notes is not None:
        notes.append(text)


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _read(path: Path) -> bytes:
    """Contents of a regular file that is no link; nothing else is waited for."""
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with os.fdopen(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(None, "it is no regular file")
        return stream.read()
