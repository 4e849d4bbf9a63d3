"""``docs/report.md`` names every bundled figure and each of its options, with the right default.

Options that all figures share are there once, before the first figure.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from regbench.report.bundled import regbench_figures
from regbench.report.draw import draw_figures
from regbench.report.figure import Figure, FigureOptions, SelectionOptions
from tests.report.synthetic import make_run

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^### ", PAGE, flags=re.M)[1:]}


def test_every_figure_has_its_section_in_the_order_of_the_report() -> None:
    assert list(SECTIONS) == [cls.name for cls in regbench_figures()]


@pytest.mark.parametrize("cls", regbench_figures(), ids=lambda cls: cls.name)
def test_options_are_documented_with_their_defaults(cls: type[Figure]) -> None:
    own = [row for row in rows_of(cls.Options) if row not in rows_of(SelectionOptions)]
    assert rows_in(SECTIONS[cls.name]) == own


def test_shared_options_are_documented_once() -> None:
    assert rows_in(PAGE.partition("\n### ")[0]) == rows_of(SelectionOptions)


def rows_in(text: str) -> list[tuple[str, ...]]:
    return re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", text, re.M)


def rows_of(options: type[FigureOptions]) -> list[tuple[str, ...]]:
    def shown(default: object) -> str:
        return "[]" if default == () else str(default)

    return [
        (name, shown(field.default), field.description or "") for name, field in options.model_fields.items()
    ]


def test_the_example_draws(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    run = make_run(tmp_path / "run", ["AE"], seeds=1, figures=tomllib.loads(example)["figures"])
    pictures, failures = draw_figures(run, tmp_path)
    assert [picture.kind for picture in pictures] == ["reconstructions", "curves", "curves"]
    assert not failures
