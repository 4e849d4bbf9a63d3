"""The project's checks: ``nox`` runs them all, ``nox -s tests -- ARGS`` the tests with arguments for pytest.

PyTorch is several gigabytes, so tests, types and docs share one environment, ``.nox/project``. It is kept
between runs; remove the directory to start afresh. Formatting and linting need none of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
ENVIRONMENT = Path(__file__).parent / ".nox" / "project"
KNOWN_VULNERABLE = "jinja2==2.10"


def project_python(session: nox.Session, *groups: str) -> str:
    """The interpreter of the shared environment, with the project and these dependency groups installed."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        session.log("creating .nox/project; installing PyTorch takes a few minutes the first time")
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(ENVIRONMENT), external=True)
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.run(str(python), "-m", "pip", "install", "--quiet", "--editable", ".", *wanted, external=True)
    return str(python)


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Formatting and lint rules."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session(reuse_venv=True)
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of the packages that regbench is installed with here, by the advisories of osv.dev.

    Needs the network. Without an answer nothing is audited, and the session fails.
    """
    session.install(*nox.project.dependency_groups(PYPROJECT, "audit"))
    audited = ("pip-audit", "--vulnerability-service", "osv", "--progress-spinner", "off")
    known = Path(session.create_tmp()) / "known.txt"
    known.write_text(f"{KNOWN_VULNERABLE}\n", encoding="utf-8")
    # An auditor that finds nothing and one that has read nothing look alike; this one must find something.
    asked = (*audited, "--no-deps", "--disable-pip", "--requirement", str(known), "--format", "json")
    answer = session.run(*asked, silent=True, success_codes=[0, 1]) or ""
    if "GHSA-" not in str(answer):
        session.error(
            f"nothing has been audited: osv.dev has not said that {KNOWN_VULNERABLE} is vulnerable, as it is known "
            f"to be; it ended with {str(answer).strip().splitlines()[-1:]}"
        )
    python = project_python(session, "test")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = str(session.run(python, "-c", where, external=True, silent=True)).strip()
    session.run(*audited, "--skip-editable", "--path", packages)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """mypy, strict."""
    python = project_python(session, "test", "types")
    session.run(python, "-m", "mypy", external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """All tests, the examples of the documentation among them, side by side; ``-- -n 0`` for one after the other."""
    python = project_python(session, "test")
    # Nets in tests are tiny: a thread each, or workers wait for each other's.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    side_by_side = ("-n", "auto", "--dist", "worksteal")
    session.run(python, "-m", "pytest", *side_by_side, *session.posargs, external=True, env=threads)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Only the documentation: executes every example in README.md and docs/."""
    python = project_python(session, "test")
    session.run(python, "-m", "pytest", "tests/test_docs.py", *session.posargs, external=True)


@nox.session(venv_backend="none")
def slurm(session: nox.Session) -> None:
    """The Slurm engine on a real one-node Slurm, with Debian's packages, as root; elsewhere it says what is missing."""
    python = project_python(session, "test", "slurm")
    tests = [f"tests/engines/test_slurm{part}.py" for part in ("", "_cluster", "_suite")]
    environment = {"REGBENCH_TEST_SLURM": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    session.run(python, "-m", "pytest", "-rs", *tests, *session.posargs, external=True, env=environment)
