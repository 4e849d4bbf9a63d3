from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from regbench.cli.data import data_app
from regbench.data.bundled import regbench_datasets
from regbench.errors import DataError, PluginError, UsageError
from tests.data.small import LAY_OUT, Small
from tests.data.test_published import flip, point_to

PLUGIN = """
from pathlib import Path
import numpy as np
import regbench
from regbench.data import fingerprint_of


class Noise(regbench.Dataset):
    name = "noise"

    @property
    def shape(self):
        return regbench.ImageShape(channels=1, side=8)

    def sizes(self, root):
        return regbench.Sizes(train=20, test=5)

    def fingerprint(self, root):
        return fingerprint_of(self.load(root))

    def load(self, root):
        pixels = np.random.default_rng(0).integers(0, 256, (25, 1, 8, 8), dtype=np.uint8)
        labels = np.zeros(25, dtype=np.int64)
        return regbench.Images(pixels[:20], labels[:20], pixels[20:], labels[20:], ("noise",))


@regbench.hookimpl
def regbench_datasets():
    return [Noise]
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def fault(result: Result, kind: type[Exception]) -> DataError:
    """The error that the command line's main function turns into a message and an exit code."""
    assert isinstance(result.exception, kind)
    assert isinstance(result.exception, DataError | UsageError)
    return result.exception  # type: ignore[return-value]


def rows(result: Result) -> dict[str, list[str]]:
    """Table rows by their first cell; cells are two blanks or more apart."""
    cells = [line.split("  ") for line in result.stdout.splitlines()]
    kept = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    return {row[0]: row[1:] for row in kept if row}


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setenv("no_proxy", "*")
    small = LAY_OUT["mnist"](tmp_path / "data", monkeypatch)
    point_to("http://127.0.0.1:9/", small, monkeypatch)
    return small


def test_ls_shows_every_set_and_where_it_is(mnist: Small) -> None:
    table = rows(call("ls", "--data-dir", mnist.root))
    assert table.keys() >= {cls.name for cls in regbench_datasets()}
    assert table["digits"] == ["16x16 grey", "1,438", "359", "built in"]
    assert table["mnist"] == ["28x28 grey", "20", "10", "present", f"{mnist.root}/MNIST/raw"]
    assert table["svhn"] == ["32x32 RGB", "73,257", "26,032", "missing", str(mnist.root)]
    assert table["folder"] == ["needs options", "path, side"]
    mnist.paths[0].unlink()
    assert rows(call("ls", "--data-dir", mnist.root))["mnist"][3] == "3 of 4 files"


def test_ls_takes_the_directory_from_the_environment(mnist: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGBENCH_DATA", str(mnist.root))
    assert rows(call("ls"))["mnist"][3] == "present"


def test_check_passes_over_what_is_not_there_unless_named(mnist: Small) -> None:
    result = call("check", "--data-dir", mnist.root)
    assert result.exit_code == 0, result.output
    assert rows(result) == {"data set": ["files"], "digits": ["fine"], "mnist": ["fine"]} | {
        key: value for key, value in rows(result).items() if set(key) == {"─"}
    }
    error = fault(call("check", "cifar10", "--data-dir", mnist.root), DataError)
    assert "cifar10 is missing" in str(error)
    assert error.exit_code == 4


def test_check_names_the_file_and_the_mend(mnist: Small) -> None:
    flip(mnist.paths[1])
    for names in ((), ("mnist",), ("digits", "mnist")):
        result = call("check", *names, "--data-dir", mnist.root)
        error = fault(result, DataError)
        assert f"{mnist.paths[1]} is altered: expected MD5" in str(error)
        assert error.hint == f"regbench data fetch mnist --data-dir {mnist.root}"
        assert rows(result)["mnist"] == ["1 wrong"]


def test_check_reports_every_set_that_is_wrong(mnist: Small) -> None:
    flip(mnist.paths[1])
    error = fault(call("check", "svhn", "mnist", "--data-dir", mnist.root), DataError)
    assert "svhn is missing" in str(error)
    assert str(mnist.paths[1]) in str(error)
    assert error.hint is not None
    assert error.hint.splitlines() == [
        f"regbench data fetch {name} --data-dir {mnist.root}" for name in ("svhn", "mnist")
    ]


def test_check_of_a_set_with_options(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train=np.zeros((20, 8, 8), dtype=np.uint8))
    good = call("check", "npz", "-o", "path=a.npz", "-o", "side=8", "--data-dir", tmp_path)
    assert good.exit_code == 0, good.output
    bad = call("check", "npz", "-o", "path=a.npz", "--option", "side=9", "--data-dir", tmp_path)
    error = fault(bad, DataError)
    assert "train has shape (20, 1, 8, 8)" in str(error)
    assert error.hint is None  # there is nothing to fetch


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("npz",), "path: Field required\n  side: Field required", "path, side, channels"),
        (("npz", "-o", "path=a", "-o", "side=big"), "side: Input should be a valid integer", "path, side"),
        (("npz", "-o", "path"), "--option path: expected KEY=VALUE", None),
        (("digits", "-o", "colour=1"), "colour: Extra inputs are not permitted", "options of digits: none"),
        (("digits", "mnist", "-o", "a=b"), "--option needs exactly one data set", "KEY=VALUE"),
        (("-o", "a=b"), "--option needs exactly one data set", "KEY=VALUE"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], message: str, hint: str | None, tmp_path: Path) -> None:
    error = fault(call("check", *arguments, "--data-dir", tmp_path), UsageError)
    assert message in str(error)
    assert error.exit_code == 2
    if hint is not None:
        assert hint in str(error.hint)


def test_unknown_names(tmp_path: Path) -> None:
    for verb in ("fetch", "check"):
        error = fault(call(verb, "mnits", "--data-dir", tmp_path), PluginError)
        assert "did you mean 'mnist'" in str(error)
        assert error.exit_code == 2


def test_fetch_leaves_what_is_fine(mnist: Small) -> None:
    result = call("fetch", "mnist", "digits", "mnist", "--data-dir", mnist.root)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["mnist: complete and verified", "digits: complete and verified"]
    assert "mnist: fetching" in result.stderr


def test_fetch_goes_on_after_a_failure(mnist: Small, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    result = call("fetch", "mnist", "digits", "--data-dir", fresh)
    error = fault(result, DataError)
    assert result.stdout.splitlines() == ["digits: complete and verified"]
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in str(error)
    assert error.hint is not None
    assert str(fresh / "MNIST/raw/train-images-idx3-ubyte.gz") in error.hint


def test_fetch_of_ones_own_images(tmp_path: Path) -> None:
    assert "cannot be used with these options" in str(fault(call("fetch", "folder"), UsageError))


def test_plugins_are_listed_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "noise.py"
    file.write_text(PLUGIN)
    listed = rows(call("ls", "--plugin", file, "--data-dir", tmp_path))
    assert listed["noise"] == ["8x8 grey", "20", "5", "built in"]
    checked = call("check", "noise", "--plugin", file, "--data-dir", tmp_path)
    assert checked.exit_code == 0, checked.output
    assert rows(checked)["noise"] == ["fine"]
    error = fault(call("fetch", "noise", "--plugin", file, "--data-dir", tmp_path), DataError)
    assert "noise has nothing to download" in str(error)
