"""Finding plugins: the bundled ones, installed ones (entry points), and files named with ``--plugin``.

Each is loaded in its own ``try``: a broken one is listed with its reason and disturbs nobody else.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from abc import ABC
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from regbench import __version__, hookspecs
from regbench.errors import PluginError
from regbench.names import RESERVED

BUNDLED = (
    "regbench.regularizers",
    "regbench.data.bundled",
    "regbench.evaluation.bundled",
    "regbench.report.bundled",
    "regbench.engines.bundled",
)
NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")

# What each hook's classes must derive from: (attribute of Registry, module, class).
KINDS = {
    "regbench_regularizers": ("regularizers", "regbench.api", "Regularizer"),
    "regbench_datasets": ("datasets", "regbench.data.base", "Dataset"),
    "regbench_metrics": ("metrics", "regbench.evaluation.metric", "Metric"),
    "regbench_figures": ("figures", "regbench.report.figure", "Figure"),
    "regbench_engines": ("engines", "regbench.engines.base", "Engine"),
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One class that a plugin offers, and where it comes from."""

    name: str
    cls: type[Any]
    distribution: str
    version: str
    source: str
    """SHA-256 of the code that determines its numbers."""
    origin: str
    """Module or file, for people."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that could not be used; ``names`` are the names it is known to offer, as far as it got."""

    origin: str
    reason: str
    traceback: str
    names: tuple[str, ...] = ()


@dataclass
class Registry:
    """All that plugins offer, by kind and name, and the plugins that are broken."""

    regularizers: dict[str, Plugin] = field(default_factory=dict)
    datasets: dict[str, Plugin] = field(default_factory=dict)
    metrics: dict[str, Plugin] = field(default_factory=dict)
    figures: dict[str, Plugin] = field(default_factory=dict)
    engines: dict[str, Plugin] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    def regularizer(self, name: str) -> Plugin:
        return self._find("regularizer", self.regularizers, name)

    def dataset(self, name: str) -> Plugin:
        return self._find("data set", self.datasets, name)

    def metric(self, name: str) -> Plugin:
        return self._find("metric", self.metrics, name)

    def figure(self, name: str) -> Plugin:
        return self._find("figure", self.figures, name)

    def engine(self, name: str) -> Plugin:
        return self._find("engine", self.engines, name)

    def _find(self, kind: str, known: dict[str, Plugin], name: str) -> Plugin:
        if name in known:
            return known[name]
        for broken in self.broken:
            if name in broken.names:
                raise PluginError(
                    f"the {kind} {name!r} comes from a broken plugin ({broken.origin}): {broken.reason}",
                    hint="regbench plugins --traceback shows where it broke",
                )
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        others = f"known: {', '.join(sorted(known))}"
        suspects = "".join(f"\n  broken plugin {broken.origin}: {broken.reason}" for broken in self.broken)
        raise PluginError(
            f"there is no {kind} {name!r}{guess} ({others}){suspects}",
            hint="what comes in a package of its own must be installed first, with pip; --plugin FILE adds a file of "
            "yours; regbench plugins lists what there is",
        )


def registry(files: Sequence[Path | str] = ()) -> Registry:
    """Load every plugin. ``files`` are Python files named with ``--plugin``; they must exist.

    What they print while they are loaded goes to stderr: stdout is for regbench's own data.
    """
    with redirect_stdout(sys.stderr):
        return _load(files)


def _load(files: Sequence[Path | str]) -> Registry:
    found = Registry()
    for module_name in BUNDLED:
        add_module(found, module_name, distribution="regbench", version=__version__)
    for entry in sorted(
        importlib.metadata.entry_points(group=hookspecs.PROJECT), key=lambda e: (_distribution(e), e.name)
    ):
        _add_entry_point(found, entry)
    for file in files:
        _add_file(found, Path(file))
    return found


def add_module(found: Registry, name: str, *, distribution: str, version: str) -> None:
    """Add what an importable module offers. Raises what its import raises."""
    _add(found, importlib.import_module(name), origin=name, distribution=distribution, version=version)


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _add_entry_point(found: Registry, entry: importlib.metadata.EntryPoint) -> None:
    origin = f"{_distribution(entry) or 'unknown distribution'} ({entry.value})"
    try:
        module = entry.load()
    except BaseException as error:  # a plugin may raise anything at import, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        found.broken.append(_broken(origin, "import failed", error, (entry.name,)))
        return
    version = entry.dist.version if entry.dist is not None else ""
    _add(
        found,
        module,
        origin=origin,
        distribution=_distribution(entry),
        version=version,
        promised=(entry.name,),
    )


def _add_file(found: Registry, path: Path) -> None:
    if not path.is_file():
        raise PluginError(f"--plugin {path}: there is no such file", hint="give the path of a Python file")
    content = path.read_bytes()
    name = f"regbench_file_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise PluginError(
            f"--plugin {path}: not a Python file", hint="give the path of a file that ends in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not the loader: its cached bytecode may be of an edit ago.
        exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found.broken.append(_broken(str(path), "import failed", error, _names_in(content)))
        return
    _add(
        found,
        module,
        origin=str(path),
        distribution=f"file:{path.name}",
        version="",
        promised=_names_in(content),
    )


def _add(
    found: Registry,
    module: Any,
    *,
    origin: str,
    distribution: str,
    version: str,
    promised: tuple[str, ...] = (),
) -> None:
    """Register one plugin by itself, ask all its hooks, and take all it offers or nothing."""
    try:
        offered = _ask(module)
        entries = [
            (kind, _checked(cls, base, hook, origin, distribution, version))
            for hook, (kind, base, classes) in offered.items()
            for cls in classes
        ]
        taken: set[tuple[str, str]] = set()
        for kind, plugin in entries:
            other = getattr(found, kind).get(plugin.name)
            if other is not None or (kind, plugin.name) in taken:
                where = other.origin if other is not None else "the same plugin"
                raise PluginError(f"its name {plugin.name!r} is already taken by {where}")
            taken.add((kind, plugin.name))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = "" if isinstance(error, PluginError) else "a hook failed"
        found.broken.append(_broken(origin, reason, error, promised))
        return
    for kind, plugin in entries:
        getattr(found, kind)[plugin.name] = plugin


def _ask(module: Any) -> dict[str, tuple[str, type[Any], list[Any]]]:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        misspelt = re.search(r"'(regbench_\w+|\w+)'", str(error))
        near = difflib.get_close_matches(misspelt.group(1), KINDS, n=1) if misspelt else []
        guess = f"; did you mean {near[0]}?" if near else f" (hooks: {', '.join(KINDS)})"
        raise PluginError(f"{str(error).splitlines()[-1].strip()}{guess}") from error
    offered = {}
    for hook, (kind, home, base_name) in KINDS.items():
        caller = getattr(manager.hook, hook)
        if not caller.get_hookimpls():
            continue
        base = getattr(importlib.import_module(home), base_name)
        (answer,) = caller() or [None]
        if answer is None or isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
            raise PluginError(
                f"{hook} must return a list of {base_name} classes, not {type(answer).__name__}"
            )
        offered[hook] = (kind, base, list(answer))
    if not offered:
        raise PluginError(
            f"it implements no hook of regbench (hooks: {', '.join(KINDS)}; mark yours with @regbench.hookimpl)"
        )
    return offered


def _checked(cls: Any, base: type[Any], hook: str, origin: str, distribution: str, version: str) -> Plugin:
    if not inspect.isclass(cls) or not issubclass(cls, base):
        what = cls.__name__ if inspect.isclass(cls) else f"an instance of {type(cls).__name__}"
        raise PluginError(f"{hook} returned {what}, which is not a subclass of regbench.{base.__name__}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > 64 or RESERVED.fullmatch(name):
        raise PluginError(
            f"{cls.__name__}.name is {repr(name)[:80]}; expected at most 64 lower-case letters, digits and hyphens, "
            "like 'my-method'"
        )
    if issubclass(cls, ABC) and inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise PluginError(f"{cls.__name__} does not define {missing}")
    if hook == "regbench_regularizers":
        _check_sampling(cls, base)
    return Plugin(name, cls, distribution, version, source_hash(cls), origin)


def _check_sampling(cls: Any, base: type[Any]) -> None:
    """What a regularizer says it samples from is one thing, and it samples."""
    if cls.prior and cls.ex_post:
        raise PluginError(
            f"{cls.__name__} has both prior and ex_post, and sample() draws from one of them: keep prior if "
            "the training draws codes to it, ex_post if it is fitted to them afterwards"
        )
    if (cls.prior or cls.ex_post) and cls.sample is base.sample:
        named = "prior" if cls.prior else "ex_post"
        raise PluginError(
            f"{cls.__name__}.{named} says what is sampled from, but it does not define sample()"
        )


def _broken(origin: str, stage: str, error: BaseException, names: tuple[str, ...]) -> Broken:
    text = str(error) if isinstance(error, PluginError) else f"{stage}: {type(error).__name__}: {error}"
    return Broken(origin, text, "".join(traceback.format_exception(error)), names)


def _names_in(source: bytes) -> tuple[str, ...]:
    """Names that a file's classes seem to carry, so that a suite naming one is told why it is missing."""
    return tuple(
        dict.fromkeys(
            re.findall(r"^\s+name\b[^=\n]*=\s*[\"']([^\"']+)", source.decode(errors="replace"), re.M)
        )
    )


def source_hash(cls: type[Any]) -> str:
    """SHA-256 of the code behind a class, newlines normalised.

    Bundled methods: their own file and ``regbench.ops`` (the harness has its own numerics version). Installed
    plugins: all ``.py`` files of their top-level package. A loose file: itself.
    """
    module = sys.modules[cls.__module__]
    files: list[Path]
    own = _file_of(module)
    top = sys.modules.get(cls.__module__.partition(".")[0], module)
    if top.__name__ == "regbench":
        ops = Path(__file__).parent / "ops"
        files = [own, *ops.rglob("*.py")]
    elif getattr(top, "__path__", None) is not None:
        files = list(_file_of(top).parent.rglob("*.py"))
    else:
        files = [own]
    return _hash_files(tuple(sorted(set(files))))


def _hash_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()


def _file_of(module: ModuleType) -> Path:
    if module.__file__ is None:
        raise PluginError(
            f"{module.__name__} has no source file, so its results could not be traced to its code"
        )
    return Path(module.__file__)
