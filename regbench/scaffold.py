"""``regbench new plugin NAME``: writes a complete, installable package around a small working regularizer."""

from __future__ import annotations

import keyword
import re
import tempfile
from pathlib import Path

import jinja2

from regbench import __version__, plugins
from regbench.errors import EnvironmentFault, UsageError

NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LONGEST = 40
PREFIX = "regbench-"

# Path inside the new package -> its template.
FILES = {
    "pyproject.toml": "pyproject.toml.jinja",
    "README.md": "README.md.jinja",
    "compare.toml": "compare.toml.jinja",
    "src/{module}/__init__.py": "plugin.py.jinja",
    "src/{module}/py.typed": None,
    "tests/test_{module}.py": "test_plugin.py.jinja",
}


def new_plugin(name: str, into: Path) -> Path:
    """Write the package ``regbench-<name>`` below ``into`` and return its directory.

    ``name`` is what suites will call the method; ``regbench-`` before it is taken off. Raises
    :class:`UsageError` where the name is malformed or taken, or the directory exists already, and
    :class:`EnvironmentFault` where it cannot be written.
    """
    name = _valid(name.removeprefix(PREFIX))
    target = into / f"{PREFIX}{name}"
    if target.exists():
        raise UsageError(f"{target} exists already", hint="choose another name, or another place with --into")
    module = f"{PREFIX}{name}".replace("-", "_")
    names = {
        "name": name,
        "distribution": f"{PREFIX}{name}",
        "module": module,
        "cls": _class_name(name),
        "regbench_version": __version__,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regbench", "templates/plugin"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the results are Python and TOML, and the names are checked
    )
    contents = {
        path.format(module=module): environment.get_template(template).render(names) if template else ""
        for path, template in FILES.items()
    }
    try:
        _write(contents, target)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {target}: {error.strerror}") from error
    return target


def _valid(name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} cannot name a method: expected lower-case letters and digits, in words joined by "
            f"single hyphens, beginning with a letter, at most {LONGEST} characters",
            hint="for example: regbench new plugin my-method",
        )
    taken = plugins.registry().regularizers.get(name)
    if taken is not None:
        raise UsageError(
            f"the name {name!r} is taken by {taken.origin}",
            hint="regbench plugins lists the names in use",
        )
    return name


def _class_name(name: str) -> str:
    """``my-method`` -> ``MyMethod``; ``none`` and ``tensor`` would clash with what the template uses."""
    cls = "".join(part.capitalize() for part in name.split("-"))
    clash = keyword.iskeyword(cls) or cls in ("Field", "Tensor")
    return f"{cls}Regularizer" if clash else cls


def _write(contents: dict[str, str], target: Path) -> None:
    """All files or none: written beside ``target``, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".regbench-new-") as staging:
        package = Path(staging) / target.name
        for path, content in contents.items():
            file = package / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        package.rename(target)
