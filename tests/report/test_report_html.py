from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from regbench.report.build import Report, write_report
from regbench.report.draw import FigureFailure
from regbench.report.facts import Facts
from regbench.report.html import render
from regbench.report.style import looks
from regbench.report.tables import build_tables
from regbench.store.records import LOCK, Run
from tests.report.synthetic import make_run

VOID = {"meta", "img", "br", "link", "input", "hr"}
ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, text by section, and whether every tag that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if {"td", "th"} & {*self.open[-4:]}:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.html.read_text(encoding="utf-8"))


def rendered(run: Run, **more: Any) -> Page:
    settings: dict[str, Any] = {"pictures": [], "failures": [], "command": "regbench report"} | more
    return Page(render(run, build_tables(run), **settings))


def test_the_file_needs_nothing_else(page: Page, report: Report) -> None:
    sources = [image["src"] or "" for image in page.all("img") if "src" in image]
    assert len(sources) == len(report.pictures) == 9
    assert all(source.startswith("data:image/") for source in sources)
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    targets = [link["href"] or "" for link in page.all("a")]
    local = [target for target in targets if not target.startswith("#")]
    assert local
    assert all((report.directory / target).is_file() for target in local)
    style = report.html.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    inside = {(link["href"] or "")[1:] for link in page.all("a") if (link["href"] or "").startswith("#")}
    assert inside
    assert inside <= ids


def test_pictures_are_embedded_as_they_were_saved(page: Page, report: Report) -> None:
    embedded = [image["src"] or "" for image in page.all("img") if "src" in image]
    for picture, source in zip(report.pictures, embedded, strict=True):
        assert base64.b64decode(source.partition("base64,")[2]) == picture.svg.read_bytes()
        assert picture.caption in page.words


def test_a_huge_drawing_is_embedded_as_pixels(
    report: Report, troubled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regbench.report.html.LARGEST_SVG", 100)
    shown = rendered(troubled, pictures=report.pictures)
    first = next(image["src"] or "" for image in shown.all("img") if "src" in image)
    assert (
        base64.b64decode(first.partition("data:image/png;base64,")[2]) == report.pictures[0].png.read_bytes()
    )


def test_only_our_script_may_run(report: Report) -> None:
    text = report.html.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in Page(text).all("meta") if m.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_head_says_what_was_run(page: Page, troubled: Run) -> None:
    for words in (
        "troubled",
        "made-up numbers for tests",
        "9 of 12 done; 1 failed, 1 diverged, 1 not run yet",
        "3 (0, 1, 2)",
        "a made-up processor (cpu)",
        "2026-01-01 00:00:00 UTC",
    ):
        assert words in page.words
    assert "3 of 12 cells have no result" in page.words
    assert f"regbench report {troubled.path}" in page.words


def test_every_number_of_the_tables_is_there(page: Page, troubled: Run) -> None:
    rows = [" ".join("".join(row).split()) for row in page.rows]
    for table in build_tables(troubled):
        for row in table.pick("metric").rows:
            text = "".join(cell.text + ",".join(cell.marks) for cell in row.cells)
            assert " ".join(text.split()) in rows
        for note in table.notes:
            assert " ".join(note.text.split()) in page.words


def test_notes_that_all_tables_share_are_there_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE"], ["one", "two"], seeds=2)
    notes = [note.text for table in build_tables(run) for note in table.notes if not note.mark]
    assert len(notes) > len(set(notes))
    words = rendered(run).words
    assert {words.count(" ".join(note.split())) for note in notes} == {1}


def test_numbers_sort_as_numbers(page: Page, troubled: Run) -> None:
    keys = {attributes["data-sort"] for attributes in page.all("td") if "data-sort" in attributes}
    (table,) = build_tables(troubled)
    values = [cell.value for row in table.rows for cell in row.cells[1:] if cell.value is not None]
    assert values
    assert {repr(float(value)) for value in values} <= keys


def test_methods_have_the_colours_of_the_figures(page: Page, troubled: Run) -> None:
    chips = {span["style"] for span in page.all("span") if span.get("class") == "chip"}
    assert chips == {f"background:{look.color}" for look in looks(troubled).values()}


def test_failed_cells_are_shown_with_their_reasons(page: Page) -> None:
    assert "RuntimeError: a | in <this> cell_1" in page.words
    assert "the loss of update 'loss' became nan" in page.words
    assert "Traceback ..." in page.words


def test_a_complete_run_speaks_of_no_problems(tmp_path: Path) -> None:
    shown = rendered(make_run(tmp_path / "run", ["AE"], seeds=2))
    assert "Problems" not in shown.words
    assert "no result" not in shown.words
    assert "2 of 2 done" in shown.words


def test_methods_show_options_and_effective_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE", "VAE-KL"], ["small", "large"], seeds=1)
    for cell in run.select(method="VAE-KL"):
        cell.result["beta_effective"] = 256.0 if cell.dataset == "small" else 3072.0
    ae, kl = Facts(run).methods
    assert ae.beta == ""
    assert kl.beta == "256 (small), 3072 (large)"
    assert kl.options == (("weight", "1.0"),)
    assert kl.plugin == "regbench 0.1.0"
    assert kl.loss_scale == "sum"
    run.select(method="VAE-KL")[0].result["beta_effective"] = 3072.0
    assert Facts(run).methods[1].beta == "3072"
    assert "weight = 1.0" in rendered(run).words


def test_figures_that_failed_are_named(troubled: Run) -> None:
    failure = FigureFailure("mine", f"figure 'mine' raised {ATTACK}", traceback="line 1\nline 2")
    shown = rendered(troubled, failures=[failure])
    assert "1 figure could not be drawn." in shown.words
    assert f"figure 'mine' raised {ATTACK}" in shown.words
    assert "line 1 line 2" in shown.words


def test_nothing_that_a_user_names_becomes_markup(tmp_path: Path) -> None:
    status = {(f"ProtoVAE K=2 {ATTACK}", "digits", 1): "failed"}
    methods = ["AE", f"ProtoVAE K=2 {ATTACK}"]
    figures = [{"kind": "reconstructions"}]
    run = make_run(tmp_path / "run", methods, seeds=2, status=status, figures=figures)
    lock = json.loads((run.path / LOCK).read_text())
    lock["suite"]["description"] = f'{ATTACK} "quoted"'
    for info in lock["suite"]["metric_info"].values():
        info["label"] = info["definition"] = f"'\"><img src=x onerror=alert(1)>{ATTACK}"
    for cell in lock["cells"]:
        cell["key"]["regularizer"]["options"][ATTACK] = f'"{ATTACK}'
        cell["key"]["training"][ATTACK] = ATTACK
    (run.path / LOCK).write_text(json.dumps(lock))
    for file in run.path.glob("cells/*/attempts/*/*.json"):
        record = json.loads(file.read_text())
        record |= {"reason": ATTACK, "traceback": ATTACK, "platform": f"'{ATTACK}"}
        file.write_text(json.dumps(record))
    report = write_report(Run.open(run.path), tmp_path / "out")
    text = report.html.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert ATTACK not in text
    assert page.words.count(ATTACK) > 10
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert not report.failures


def test_provenance_lists_what_differs_and_keeps_private_things_private(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE"], seeds=6)
    for number, file in enumerate(sorted(run.path.glob("cells/*/attempts/*/attempt.json"))):
        record = {
            "started": f"2026-01-0{number + 1}T00:00:00+00:00",
            "host": "secret-host",
            "command": ["/home/secret/bin/regbench"],
            "python": "3.11.9" if number else "3.12.1",
            "libraries": {"torch": "2.10", "regbench": "0.1.0"},
            "git": None,
            "number": number,
        }
        file.write_text(json.dumps(record))
    facts = Facts(run)
    assert dict(facts.provenance) == {
        "python": "3.12.1, 3.11.9",
        "libraries.torch": "2.10",
        "libraries.regbench": "0.1.0",
        "number": "6 different values",
    }
    assert facts.latest == "2026-01-06 00:00:00 UTC"
    assert "secret" not in rendered(run).words


def test_only_the_latest_attempt_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE"], seeds=1)
    first = run.cells[0].directory / "attempts"
    for number in (2, 10):
        (first / f"{number}-abc").mkdir()
        (first / f"{number}-abc" / "attempt.json").write_text(json.dumps({"python": f"3.{number}"}))
    assert dict(Facts(run).provenance) == {"python": "3.10"}
