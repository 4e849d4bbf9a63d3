"""Names, options, claims and reasons are text wherever a report shows them: in HTML, in Markdown, in LaTeX."""

from __future__ import annotations

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt

from regbench.report.build import Report, write_report
from regbench.store.records import LOCK, Run
from tests.report.synthetic import make_run
from tests.report.test_report_html import Page

SCRIPT = "<script>alert(1)</script>"
QUOTED = "\"'><img src=x onerror=alert(1)>"
TEX = r"\input{/etc/passwd} \write18{id} $x$ %"
MARKS = "`code` | cell [a](javascript:x) <b>\n\n# head"
NASTY = f"{SCRIPT}{QUOTED}{TEX}{MARKS}"
METHOD = f"M {SCRIPT}{QUOTED}{TEX} ` |"
DATASET = "d <script>&_%"


def replaced(value: Any) -> Any:
    """Every text of a record, and every key of its free tables, made nasty."""
    if isinstance(value, str):
        return NASTY
    if isinstance(value, dict):
        return {key: replaced(item) for key, item in value.items()}
    return [replaced(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report of a run in which whatever a stranger may choose is an attack."""
    place = tmp_path_factory.mktemp("nasty")
    status = {(METHOD, DATASET, 1): "failed"}
    figures = [{"kind": "curves"}]
    run = make_run(place / "run", ["AE", METHOD], [DATASET], seeds=3, status=status, figures=figures)
    lock = json.loads((run.path / LOCK).read_text())
    head = lock["suite"]
    head["description"] = NASTY
    head["file"] = NASTY
    head["families"] = {METHOD: NASTY, "AE": NASTY}
    head["claims"] = [
        {"kind": "ordering", "statement": NASTY, "metric": "mse", "methods": ["AE", METHOD], "datasets": []}
    ]
    for info in head["metric_info"].values():
        info["label"] = info["definition"] = NASTY
    for cell in lock["cells"]:
        regularizer = cell["key"]["regularizer"]
        regularizer |= {"name": NASTY, "options": {NASTY: NASTY, "list": [NASTY]}}
        regularizer["plugin"] = replaced(regularizer["plugin"])
        cell["key"]["dataset"] |= {"name": NASTY, "options": {NASTY: NASTY}, "fingerprint": NASTY}
        cell["key"]["training"][NASTY] = NASTY
        cell["key"]["model"][NASTY] = NASTY
    (run.path / LOCK).write_text(json.dumps(lock))
    for file in run.path.glob("cells/*/attempts/*/attempt.json"):
        record = json.loads(file.read_text())
        kept = {key: record[key] for key in ("started",) if key in record}
        file.write_text(json.dumps({**replaced(record), NASTY: NASTY, **kept}))
    for file in run.path.glob("cells/*/attempts/*/outcome.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "reason": NASTY, "traceback": NASTY}))
    return write_report(Run.open(run.path), place / "out")


def test_nothing_in_the_page_is_markup_that_is_not_ours(report: Report) -> None:
    text = report.html.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert SCRIPT not in text
    assert "<img src=x" not in text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    links = [link["href"] or "" for link in page.all("a")]
    assert not any(link.lower().startswith(("javascript:", "http", "//")) for link in links)
    assert page.words.count("alert(1)") > 20, "all of it is there, as text"


def test_nothing_in_the_markdown_is_markup_that_is_not_ours(report: Report) -> None:
    text = (report.directory / "table.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert not [token for token in tokens if token.type in ("html_block", "fence", "code_block")]
    inside = [child for token in tokens for child in token.children or []]
    html = {child.content for child in inside if child.type == "html_inline"}
    assert html <= {"<sup>", "</sup>"}
    assert not [child for child in inside if child.type in ("link_open", "image", "code_inline")]
    shown = "".join(child.content for child in inside)
    assert SCRIPT in shown
    widths = {}
    for line in text.splitlines():  # every row of a table has as many cells as its head
        if not line.startswith("|"):
            widths = {}
            continue
        cells = line.replace(r"\|", "").count("|")
        assert widths.setdefault("cells", cells) == cells, line


def test_nothing_in_the_latex_is_a_command_that_is_not_ours(report: Report) -> None:
    text = (report.directory / "table.tex").read_text(encoding="utf-8")
    body = text.partition(r"\begin{table}")[2]
    assert r"\input" not in body
    assert r"\write" not in body
    assert r"\textbackslash{}input\{" in body
    assert "$x$" not in body
    for line in body.splitlines():
        bare = line.replace(r"\%", "").replace("{%", "").replace("}%", "").rstrip()
        assert "%" not in bare.removesuffix("%"), line


def test_figures_are_drawn_all_the_same(report: Report) -> None:
    assert not report.failures
    assert report.pictures
    for picture in report.pictures:
        assert "<script" not in picture.svg.read_text(encoding="utf-8")
