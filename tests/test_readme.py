"""The README keeps its promises: two blocks first, and no number that the committed report does not give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_opens_with_exactly_two_blocks() -> None:
    opening = README.partition("\n## ")[0]
    main, tests = re.findall(r"```bash\n(.*?)```", opening, re.S)
    assert [line for line in main.splitlines() if line.startswith(("pip", "regbench"))] == [
        "pip install .",
        "regbench run suites/quick.toml",
        "regbench report",
    ]
    assert tests.splitlines()[-2:] == ["pip install nox", "nox -s tests"]


def test_its_table_is_the_committed_reports() -> None:
    shown = [line for line in README.partition("## Your own method")[0].splitlines() if line.startswith("|")]
    assert len(shown) > 7
    report = (ROOT / "reports" / "quick" / "table.md").read_text(encoding="utf-8").splitlines()
    assert set(shown) <= set(report)


def test_its_picture_is_committed() -> None:
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (ROOT / picture).stat().st_size > 10_000


@pytest.mark.parametrize(
    "readme", sorted(ROOT.glob("plugins/*/README.md")), ids=lambda path: path.parent.name
)
def test_numbers_of_a_packages_comparison_are_in_the_committed_report(readme: Path) -> None:
    report = (ROOT / "reports" / "related-work-small" / "table.md").read_text(encoding="utf-8")
    section = readme.read_text(encoding="utf-8").partition("## In the comparison")[2]
    numbers = re.findall(r"\d+(?:\.\d+)? ± \d+(?:\.\d+)?", section)
    assert numbers
    assert [number for number in numbers if number not in report] == []
