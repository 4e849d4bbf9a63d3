"""Every benchmark runs in small, and the bundle says how each part ended."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.cell import row
from benchmarks.common import Timing, ratio
from benchmarks.contestants import TINY_SHAPES, Arena
from benchmarks.profile import shares
from benchmarks.run import GPU_SECONDS, Part, main, parts, run

ROOT = Path(__file__).parents[2]
PAGES = {
    "training": ("time over the bare loop's, fp32, cifar", "Best matrix product in fp32"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_benchmark_in_small_writes_its_page(name: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / f"{name}-cpu.md").read_text()
    assert f"`python -m benchmarks.{name} --device cpu --tiny" in page
    assert "- torch: " in page
    for text in PAGES[name]:
        assert text in page


@pytest.mark.slow
def test_the_benchmark_of_engines_in_small(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.engines", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "engines-cpu.md").read_text()
    assert "| local, --jobs 2 | " in page


def test_the_bundles_name_benchmarks_that_exist() -> None:
    for device in ("cpu", "cuda"):
        for part in parts(device):
            module = part.command[1]
            if module.startswith("benchmarks."):
                assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    assert parts("cuda")[0].command[:2] == ("-m", "pytest")
    assert GPU_SECONDS <= 8 * 60


@pytest.mark.parametrize(
    ("code", "limit", "left", "how"),
    [
        ("pass", 100, 100.0, r"done in \d+ s"),
        ("raise SystemExit(3)", 100, 100.0, r"failed with exit code 3 in \d+ s"),
        ("import time; time.sleep(60)", 1, 100.0, "stopped after 1 s"),
        ("pass", 100, 4.0, "left out: no time"),
    ],
)
def test_how_a_part_ends_is_said(code: str, limit: int, left: float, how: str) -> None:
    assert re.fullmatch(how, run(Part("part", ("-c", code), limit), left, ()))


def test_a_whole_training_is_scaled_to_its_epochs() -> None:
    arena = Arena.make(TINY_SHAPES["cifar"], 64, 16, torch.device("cpu"))
    name, trained, setup, scaled, aim, *_ = row("AE", arena, epochs=4, warmup=1, compile=False)
    assert (name, aim) == ("AE, fp32", "55 s")
    seconds = [float(text.removesuffix(" s")) for text in (trained, setup, scaled)]
    assert seconds[2] > 20 * seconds[0]


def test_a_profile_names_the_operations_and_their_shares() -> None:
    arena = Arena.make(TINY_SHAPES["cifar"], 32, 16, torch.device("cpu"))
    rows = shares("ProtoVAE K=50", arena, compile=False).rows
    # Two batches: an autoencoder's 7 convolutions once, the encoder's 3 twice more.
    assert {name: calls for name, calls, *_ in rows}["aten::convolution_backward"] == str(2 * (7 + 2 * 3))
    spent = [float(milliseconds) for _, _, milliseconds, _ in rows]
    assert spent == sorted(spent, reverse=True)
    assert 0.5 < sum(float(share.rstrip("%")) for *_, share in rows) / 100 <= 1.001


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = CliRunner().invoke(app(), ["--device", "cuda"])
    assert found.exit_code == 4
    assert "--device cuda: this torch" in found.output


def app() -> typer.Typer:
    bundle = typer.Typer()
    bundle.command()(main)
    return bundle


def test_a_ratio_is_taken_within_rounds() -> None:
    slow, fast = Timing((2.0, 40.0, 6.0)), Timing((1.0, 10.0, 2.0))
    assert ratio(fast, slow) == 3.0
