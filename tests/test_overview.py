"""The table of methods: what it counts, and the page that it is in."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regbench import Regularizer, Update, overview
from regbench.errors import PluginError, UsageError
from regbench.model import Model
from regbench.nets import forward_flops
from regbench.plugins import Broken, Plugin, Registry, registry
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


def test_main_writes_the_installed_methods_into_a_page(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"before\n{overview.BEGIN}\nold\n{overview.END}\nafter\n")
    assert overview.main([str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{overview.BEGIN}\n\n| method |")
    assert "| `proto-vae` | regbench |" in text
    assert text.endswith(f"|\n\n{overview.END}\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        f"{overview.BEGIN}\nno end, and text that must stay",
        f"{overview.END}\n{overview.BEGIN}",
        f"{overview.BEGIN}\n{overview.END}\n{overview.BEGIN}\n{overview.END}",
    ],
)
def test_a_page_without_both_marks_is_left_alone(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert overview.main([str(page)]) == UsageError.exit_code
    assert page.read_text() == text
    shown = capsys.readouterr().err
    assert "does not have the two marks" in shown
    assert f"\n{overview.BEGIN}\n{overview.END}\n" in shown  # to be copied from there


def test_a_missing_page_and_no_page_are_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert overview.main([str(tmp_path / "nowhere.md")]) == UsageError.exit_code
    shown = capsys.readouterr().err
    assert "nowhere.md" in shown
    assert "hint: give the path" in shown
    with pytest.raises(SystemExit):
        overview.main([])
    assert "PAGE" in capsys.readouterr().err


def test_a_broken_plugin_does_not_lose_its_row_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{overview.BEGIN}\nold\n{overview.END}\n")
    broken = Registry(broken=[Broken("mine (mine)", "import failed: ImportError: no", "")])
    monkeypatch.setattr(overview, "registry", lambda: broken)
    assert overview.main([str(page)]) == PluginError.exit_code
    assert "mine (mine): import failed" in capsys.readouterr().err
    assert "old" in page.read_text()


class Contractive(Regularizer):
    """A penalty on the code's gradient by the image."""

    name = "contractive"

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        x_BCHW = x_BCHW.requires_grad_()
        z_BD = model.encode(x_BCHW)
        (gradient_BCHW,) = torch.autograd.grad(z_BD.sum(), x_BCHW, create_graph=True)
        loss = model.reconstruction_loss(z_BD, x_BCHW) + gradient_BCHW.square().sum()
        yield Update("loss", loss, updates=[*model.encoding, model.decoder])


class Waits(Regularizer):
    """Reads a value in its step."""

    name = "waits"

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"norm": code_BD.norm() / code_BD.norm().item()}


def test_gradients_of_gradients_count() -> None:
    assert overview.count(Contractive).operations > 1.3 * overview.count(AE).operations


def test_a_method_that_cannot_be_counted_is_named() -> None:
    plugin = Plugin("waits", Waits, "mine", "1", "", "mine/waits.py")
    with pytest.raises(PluginError, match=r"waits \(mine/waits.py\): a step .* cannot be counted"):
        overview.table([plugin])
