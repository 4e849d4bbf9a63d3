"""``docs/report.md`` names every bundled figure and each of its options, with the right default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from regbench.report.bundled import regbench_figures
from regbench.report.draw import draw_figures
from regbench.report.figure import Figure
from tests.report.synthetic import make_run

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^### ", PAGE, flags=re.M)[1:]}


def test_every_figure_has_its_section_in_the_order_of_the_report() -> None:
    assert list(SECTIONS) == [cls.name for cls in regbench_figures()]


@pytest.mark.parametrize("cls", regbench_figures(), ids=lambda cls: cls.name)
def test_options_are_documented_with_their_defaults(cls: type[Figure]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", SECTIONS[cls.name], re.M)
    fields = cls.Options.model_fields
    assert rows == [(name, str(field.default), field.description) for name, field in fields.items()]


def test_the_example_draws(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    run = make_run(tmp_path / "run", ["AE"], seeds=1, figures=tomllib.loads(example)["figures"])
    pictures, failures = draw_figures(run, tmp_path)
    assert [picture.kind for picture in pictures] == ["reconstructions", "curves"]
    assert not failures
