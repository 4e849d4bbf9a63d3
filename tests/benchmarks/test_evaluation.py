"""The benchmarks of evaluation and of predictions run, and say what they have found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import evaluation
from benchmarks.evaluation import PARTS, Part
from benchmarks.prediction import Comparison


def rows(page: Path) -> list[list[str]]:
    """The cells of a page's only table, without its head."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_evaluation_is_timed_as_a_whole_and_in_parts(tmp_path: Path) -> None:
    evaluation.main(tiny=True, device="cpu", part=[Part.metrics, Part.parts], out=tmp_path)
    narrow, coloured = rows(tmp_path / "evaluation-metrics-cpu.md")
    assert narrow[0] == "28 x 28, narrow"
    assert narrow[-1] == coloured[-1] == "yes (15 s)"  # of 128 images
    found = rows(tmp_path / "evaluation-parts-cpu.md")
    assert [row[0] for row in found] == ["AE, narrow", "VAE-KL, narrow", "ProtoVAE K=10, narrow"]
    for row in found:
        assert len(row) == 2 + len(set(PARTS.values()))
        assert float(row[-1]) > 0


@pytest.mark.parametrize(("memory", "verdict"), [(1.2e9, ": within 25%"), (1.3e9, "30%: NOT within 25%")])
def test_a_prediction_that_is_off_is_said_to_be(memory: float, verdict: str) -> None:
    cost = {"wall_seconds": 10.0, "peak_memory_bytes": 1e9}
    cell: Any = SimpleNamespace(status="done", dataset="digits", method="AE", seed=0, result={"cost": cost})
    missing: Any = SimpleNamespace(status="failed")
    plan = {
        "cells": [{"estimate": {"seconds": 9.0, "memory_bytes": memory}}, {"estimate": None}],
        "estimate": {"seconds": 11.0, "probe_seconds": 2.0, "datasets": {"digits": 0.5}},
    }
    run: Any = SimpleNamespace(cells=[cell, missing])
    text = Comparison("a suite", plan, run, wall=10.0).table().markdown()
    assert "| digits AE seed 0 | 9.00 s | 10.00 s | 0.90 |" in text
    assert "| the whole run | 11.00 s | 10.00 s | 1.10 |" in text
    assert verdict in text
