"""The table of methods: what it counts, and the page that it is in."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from regbench import Regularizer, overview
from regbench.nets import forward_flops
from regbench.plugins import registry
from regbench.regularizers.ae import AE
from tests.packages import ROOT, with_packages

ALL = with_packages().regularizers


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page.count(overview.BEGIN) == page.count(overview.END) == 1
    assert page == overview.updated(page, ALL.values(), ROOT), "run what the mark in the page says"


def test_every_method_of_the_repository_has_its_row_and_says_what_it_does() -> None:
    rows = overview.table(ALL.values(), ROOT).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(ALL)
    for name, plugin in ALL.items():
        method: type[Regularizer] = plugin.cls
        assert method.regularizes, name
        assert method.paper, name
        assert not (method.prior and method.ex_post), name
        assert method.prior or method.ex_post or name == "ae"


def test_operations_are_those_of_the_net() -> None:
    """A layer takes a forward pass and two products of the same size backward, but for the image's own gradient."""
    shape = overview.reference_shape()
    assert (shape.widths, shape.latent) == ((128, 256), 256)
    image_gradient = 2 * overview.BATCH * 14**2 * 4**2 * 128
    found = overview.count(AE)
    assert found.operations == 3 * overview.BATCH * forward_flops(shape) - image_gradient


@pytest.mark.parametrize(
    ("name", "steps", "parameters", "kept"),
    [
        ("ae", 1, 0, 0),
        ("vae-kl", 1, 256 * 256 + 256, 0),
        ("proto-vae", 3, 10 * 256, 0),
        ("wae-gan", 2, 256 * 512 + 3 * 512 * 512 + 4 * 512 + 512 + 1, 0),
        ("rae-l2", 1, 0, 10 * (1 + 256 + 256 * 256)),
    ],
)
def test_steps_and_sizes_are_those_of_the_method(name: str, steps: int, parameters: int, kept: int) -> None:
    found = overview.count(ALL[name].cls)
    assert (found.steps, found.parameters, found.kept) == (steps, parameters, kept)


def test_a_second_encoding_counts() -> None:
    ae, sela, swav = (overview.count(ALL[name].cls).operations for name in ("ae", "sela", "swav"))
    assert swav - sela == pytest.approx(sela - ae, rel=0.02)
    assert sela > 1.3 * ae


SOURCE = '''
    """A module
    of two lines of text."""

    import regbench  # counts
    # does not


    class Short(regbench.Regularizer):
        """Nor this."""

        name = "short"
        """Nor what an attribute means."""
        text = """but this
    counts"""

        def forward(
            self, code_BD, h_BF
        ):
            return code_BD, {}


    @regbench.hookimpl
    def regbench_regularizers():
        return [Short]
'''


def test_lines_of_code_and_a_method_that_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "short.py"
    file.write_text(textwrap.dedent(SOURCE))
    found = registry([file])
    assert not found.broken
    plugin = found.regularizer("short")
    assert overview.lines_of_code(plugin.cls) == 1 + 1 + 1 + 2 + 3 + 1 + 3
    row = overview.table([plugin]).splitlines()[2].split(" | ")
    assert row[1:5] == [
        "file:short.py",
        "–",
        "none",
        "ex post, by regbench: Gaussian fitted to the training codes",
    ]


def test_main_writes_the_installed_methods_into_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"before\n{overview.BEGIN}\nold\n{overview.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["overview", str(page)])
    overview.main(sys.argv[1:])
    text = page.read_text()
    assert text.startswith(f"before\n{overview.BEGIN}\n\n| method |")
    assert "| `proto-vae` | regbench |" in text
    assert text.endswith(f"|\n\n{overview.END}\nafter\n")
    assert "old" not in text
