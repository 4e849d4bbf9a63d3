"""The documentation is true: its examples run, its links lead somewhere, and it leaves no hook or verb out.

Each page runs top to bottom in an empty directory of its own, next to copies of ``suites/`` and ``plugins/``:
``python`` blocks share one namespace; of ``console`` and ``bash`` blocks the ``regbench`` commands run, and
what a ``console`` block shows below a command must be what it prints (``...`` stands for anything). Comments
before a block say more: ``<!-- exit 2 -->``, ``<!-- file: mine.py -->`` (written, not run; as ``test_mine.py`` its
tests must pass) and ``<!-- not run: why -->``.
"""

from __future__ import annotations

import doctest
import inspect
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from markdown_it import MarkdownIt
from typer.core import TyperCommand, TyperGroup, TyperOption

from regbench import hookspecs
from regbench.cli.app import app, main
from regbench.conformance.checks import CHECKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
MARKER = re.compile(r"<!--\s*(exit|file|not run):?\s+(.*?)\s*-->")
SAME = doctest.OutputChecker()
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int
    exit_code: int = 0
    file: str | None = None
    not_run: bool = False


def blocks(text: str) -> Iterator[Block]:
    markers: dict[str, str] = {}
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            markers |= dict(MARKER.findall(token.content))
        elif token.type == "fence":
            assert token.map is not None
            yield Block(
                kind=token.info.strip(),
                text=token.content,
                line=token.map[0] + 1,
                exit_code=int(markers.get("exit", "0")),
                file=markers.get("file"),
                not_run="not run" in markers,
            )
            markers = {}


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The ``regbench`` commands of a block, each with the output shown below it (empty where none is)."""
    text = block.text.replace("\\\n", " ")
    if block.kind == "console":
        found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M)
    else:
        found = [(line, "") for line in text.splitlines()]
    for command, shown in found:
        if re.match(r"(\w+=\S+ )*regbench\b", command):
            yield command, shown


# A server that has imported everything once, and forks a fresh process for each command.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["regbench.workflow", "regbench.estimate", "regbench.testing", "regbench.report.build"]
)


def execute(arguments: list[str], environment: dict[str, str], place: Path, output: Path) -> None:
    """What the ``regbench`` script does, in a process of its own; ends with its exit code."""
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, printed), (2, printed)):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    sys.argv = ["regbench", *arguments]
    sys.exit(main())


def parse(command: str) -> tuple[dict[str, str], list[str]]:
    """``A=1 regbench run x``: the variables and the arguments. Pipes and redirections are refused."""
    words = shlex.split(command, comments=True)
    assert not {"|", ">", "<", "&&", ";"} & set(words), f"only plain commands run here: {command}"
    at = words.index("regbench")
    variables = (word.partition("=") for word in words[:at])
    return {name: value for name, _, value in variables}, words[at + 1 :]


def run_command(command: str, shown: str, block: Block, place: Path) -> None:
    where = f"line {block.line}: $ {command}\n"
    variables, arguments = parse(command)
    output = place.with_suffix(".output")
    process = SERVER.Process(target=execute, args=(arguments, {**os.environ, **variables}, place, output))
    process.start()
    process.join()
    printed = output.read_text(encoding="utf-8")
    assert process.exitcode == block.exit_code, f"{where}exit {process.exitcode}\n{printed}"
    assert "Traceback" not in printed, f"{where}{printed}"
    if shown.strip():
        matches = SAME.check_output(f"{shown.strip()}\n", f"{printed.strip()}\n", LOOSELY)
        assert matches, f"{where}--- shown\n{shown}\n--- printed\n{printed}"


def run_tests(file: Path, block: Block) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    result = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
    assert result.returncode == 0, f"line {block.line}: {file.name}\n{result.stdout}{result.stderr}"
    assert " passed" in result.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page runs: a directory of its own, with copies of what examples may name."""
    place = tmp_path / "page"
    place.mkdir()
    for shared in ("suites", "plugins"):
        shutil.copytree(ROOT / shared, place / shared)
    monkeypatch.chdir(place)
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the nets are tiny; threads would only wait for each other
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    return place


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_examples_run(page: Path, place: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.not_run:
            continue
        if block.file is not None:
            file = place / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            if file.name.startswith("test_"):
                run_tests(file, block)
        elif block.kind == "python":
            padding = "\n" * block.line  # so that a traceback names the page's own line
            exec(compile(padding + block.text, str(page), "exec"), namespace)
        elif block.kind in ("console", "bash", "sh"):
            for command, shown in commands(block):
                run_command(command, shown, block, place)
        elif block.kind == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S))
    local = [target.partition("#")[0] for target in targets if not re.match(r"\w+:", target)]
    missing = [target for target in local if target and not (page.parent / target).exists()]
    assert not missing


def hooks() -> list[str]:
    return sorted(name for name, value in vars(hookspecs).items() if hasattr(value, "regbench_spec"))


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_has_a_page_that_shows_its_signature(hook: str) -> None:
    page = DOCS / "hooks" / f"{hook.removeprefix('regbench_')}.md"
    signature = f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")
    assert signature in page.read_text(encoding="utf-8"), f"{page} must show {signature}"


def test_all_hooks_were_found() -> None:
    assert "regbench_regularizers" in hooks()
    assert len(hooks()) >= 4


COMMAND = typer.main.get_command(app)


def verbs() -> dict[str, TyperCommand | TyperGroup]:
    assert isinstance(COMMAND, TyperGroup)
    return COMMAND.commands


def options(command: TyperCommand | TyperGroup) -> set[str]:
    """The long options of a verb and of the commands below it."""
    found = {
        name
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    } - {"--help"}
    if isinstance(command, TyperGroup):
        for below in command.commands.values():
            found |= options(below)
    return found


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_a_page_with_all_its_options_and_no_others(verb: str) -> None:
    text = (DOCS / "cli" / f"{verb}.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `--")]
    documented = {option for row in rows for option in re.findall(r"`(--[\w-]+)", row.split("|")[1])}
    assert documented == options(verbs()[verb])


def test_no_page_for_a_verb_that_is_not_there() -> None:
    assert {page.stem for page in (DOCS / "cli").glob("*.md")} == verbs().keys()


def test_the_page_of_check_lists_every_check() -> None:
    text = (DOCS / "cli" / "check.md").read_text(encoding="utf-8")
    section = text.partition("## What is checked")[2].partition("##")[0]
    listed = re.findall(r"^- (.*)$", section, re.M)
    assert listed == [(check.__doc__ or "").strip() for check in CHECKS]


def test_these_tests_see_what_they_look_for(place: Path) -> None:
    page = """
<!-- exit 2 -->
```console
$ pip install regbench
$ regbench run x.toml \\
    --quiet
wrong
$ A=1 regbench plan
```
<!-- file: mine.py -->

```python
x = 1
```

```python
y = 2
```
"""
    found = list(blocks(page))
    assert [(b.kind, b.exit_code, b.file) for b in found] == [
        ("console", 2, None),
        ("python", 0, "mine.py"),
        ("python", 0, None),
    ]
    assert list(commands(found[0])) == [
        ("regbench run x.toml      --quiet", "wrong\n"),
        ("A=1 regbench plan", ""),
    ]
    assert parse("A=1 regbench run 'x y' # why") == ({"A": "1"}, ["run", "x y"])
    run_command("regbench --version", "regbench 0...", Block("console", "", 1), place)
    with pytest.raises(AssertionError, match="exit 2"):
        run_command("regbench --nonsense", "", Block("console", "", 1), place)
    with pytest.raises(AssertionError, match="shown"):
        run_command("regbench --version", "regbench x", Block("console", "", 1), place)
    with pytest.raises(AssertionError, match="plain commands"):
        run_command("regbench --version | cat", "", Block("console", "", 1), place)
    for text, fails in (("def test_it(): pass", False), ("def test_it(): assert 0", True), ("", True)):
        (place / "test_mine.py").write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError, match=r"test_mine\.py") if fails else nullcontext():
            run_tests(place / "test_mine.py", Block("python", "", 1))
