"""The command line: exit codes, messages without tracebacks, and where output goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regbench.cli import app
from tests.execution.suites import AE, FALLING, write_plugin, write_suite


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    monkeypatch.delenv("REGBENCH_DATA", raising=False)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["regbench", *map(str, arguments)])
    return app.main()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, "regbench "),
        (["frobnicate"], 2, "frobnicate"),
        (["run"], 2, "Usage: regbench run"),
        (["run", "nowhere.toml"], 2, "nowhere.toml"),
        (["run", "tiny.toml", "--device", "gpu"], 4, "--device gpu: unknown"),
        (["run", "tiny.toml", "--device", "cuda:99"], 4, "--device cuda:99"),
        (["run", "tiny.toml", "--plugin", "nowhere.py"], 2, "there is no such file"),
        (["run", "tiny.toml", "--force", "nothing-like-it"], 2, "fits no cell"),
        (["report"], 2, "there is no last run"),
        (["report", "nowhere"], 2, "there is no run 'nowhere'"),
        (["plugins", "--options", "proto-vea"], 2, "did you mean 'proto-vae'?"),
        (["check", "no-such-method"], 2, "there is no regularizer"),
        (["check", "ae", "--option", "weight"], 2, "expected key=value"),
        (["check", "ae", "--option", "wait=1"], 2, "options of ae: wait"),
        (["check", "nowhere.py"], 2, "there is no such file"),
    ],
)
def test_exit_codes_and_messages(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    write_suite(place, AE)
    assert call(monkeypatch, *arguments) == code
    out, err = capsys.readouterr()
    assert said in out + err
    assert "Traceback" not in err


def test_failed_cells_end_with_3_and_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(place, AE + FALLING.format(label="falls", options="fall = true"))
    assert call(monkeypatch, "run", suite, "--device", "cpu", "--plugin", write_plugin(place), "--quiet") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 2 cells failed" in err
    assert "digits falls seed 0: failed: RuntimeError: I fell" in err
    assert "Traceback" not in err


def test_plain_lines_without_a_terminal_json_and_quiet(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(place, AE)
    assert call(monkeypatch, "run", suite, "--device", "cpu") == 0
    out, err = capsys.readouterr()
    assert out == "", "progress goes to stderr"
    assert "tiny: 1 of 1 cells to run on cpu, in runs/tiny" in err
    assert "[1/1] digits AE seed 0: done in" in err
    assert "\x1b" not in err, "no escape codes without a terminal"
    assert call(monkeypatch, "run", suite, "--device", "cpu", "--force", "AE", "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events][:2] == ["SuiteStarted", "CellStarted"]
    assert events[2]["losses"]["warmup"] > 0
    assert call(monkeypatch, "run", suite, "--device", "cpu", "--force", "AE", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_plan_says_what_will_happen_and_writes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(place, AE, seeds="3")
    for arguments in (["plan", suite], ["run", suite, "--dry-run"]):
        assert call(monkeypatch, *arguments, "--device", "cpu") == 0
        out = capsys.readouterr().out
        assert "3 to run, 0 not; about" in out
        assert "not run yet" in out
    assert not (place / "runs").exists()
    assert call(monkeypatch, "plan", suite, "--device", "cpu", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned["cells"]) == 3
    assert planned["cells"][0]["estimate"]["seconds"] > 0
    assert planned["cells"][0]["estimate"]["memory_bytes"] > 1e6
    whole = planned["estimate"]
    parts = [*(cell["estimate"]["seconds"] for cell in planned["cells"]), *whole["datasets"].values()]
    assert whole["seconds"] > sum(parts)  # the start of the process as well


def test_broken_plugins_are_listed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = write_plugin(place, "import no_such_module_anywhere")
    assert call(monkeypatch, "plugins", "--plugin", plugin, "--traceback") == 0
    out = capsys.readouterr().out
    assert "proto-vae" in out
    assert "broken: " in out
    assert "ModuleNotFoundError" in out
    assert call(monkeypatch, "check", plugin) == 2
    assert "falling.py is broken: import failed" in capsys.readouterr().err


def test_check_reports_and_fails(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = write_plugin(place)
    assert call(monkeypatch, "check", plugin) == 0
    assert "falling: 0 of 15 checks failed" in capsys.readouterr().out
    assert call(monkeypatch, "check", plugin, "--option", "fall=true", "--traceback") == 2
    out, err = capsys.readouterr()
    assert "RuntimeError: I fell" in out
    assert "not conforming: falling" in err


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['regbench', '--help']; from regbench.cli.app import main; code = main(); "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'sklearn'} & set(sys.modules); "
        "sys.exit(1 if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_output_that_nobody_reads_is_no_fault() -> None:
    done = subprocess.run(
        f"{sys.executable} -m regbench plugins | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "bug of regbench" not in done.stderr


def test_completion_offers_suites_runs_and_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regbench.cli import options

    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    write_suite(place, AE)
    (place / "suites").mkdir()
    (place / "suites" / "other.toml").write_text("")
    assert options.suite_files("") == ["suites/other.toml", "tiny.toml"]
    assert options.suite_files("ti") == ["tiny.toml"]
    assert options.run_names("") == []
    assert call(monkeypatch, "run", "tiny.toml", "--device", "cpu", "--quiet") == 0
    assert options.run_names("t") == ["tiny"]
    assert "proto-vae" in options.regularizer_names("pro")
    assert "mnist" in options.dataset_names("mn")
    if os.name == "posix" and sys.platform == "linux":
        assert (place / "cache" / "regbench" / "names.json").exists()
