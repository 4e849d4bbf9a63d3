"""For authors of regularizers: the conformance kit, also behind ``regbench check``, and short trainings.

from regbench.testing import assert_conforms, train

def test_conforms():
    assert_conforms(MyRegularizer)

def test_codes_are_small():
    assert train(MyRegularizer, epochs=8).codes().norm(dim=1).mean() < 1
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from regbench.api import Regularizer
from regbench.conformance.behaviour import Trained, train
from regbench.conformance.bench import Bench, one_thread
from regbench.conformance.checks import CHECKS, Fault, Skip
from regbench.errors import RegbenchError

__all__ = ["Finding", "Report", "Trained", "assert_conforms", "check", "train"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    """What was checked, in words."""
    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""
    mend: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings for one method with one set of options."""

    method: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome == "failed")

    def __str__(self) -> str:
        lines = [f"{self.method}: {len(self.failures)} of {len(self.findings)} checks failed"]
        for finding in self.findings:
            detail = f": {finding.message}" if finding.message else ""
            mend = f"\n         mend: {finding.mend}" if finding.mend else ""
            lines.append(f"  {finding.outcome:<7} {finding.check}{detail}{mend}")
        return "\n".join(lines)


def check(method: type[Regularizer], *, device: str = "cpu", **options: Any) -> Report:
    """Run every check on ``method`` with ``options``: short trainings on real digits, a few seconds in all."""
    bench = Bench(method, options, torch.device(device))
    with one_thread():
        return Report(method.name, tuple(_run(each, bench) for each in CHECKS))


def assert_conforms(method: type[Regularizer], *, device: str = "cpu", **options: Any) -> None:
    """Raise ``AssertionError`` with the whole report unless every check passes. For use in tests."""
    report = check(method, device=device, **options)
    if report.failures:
        raise AssertionError(str(report))


def _run(each: Callable[[Bench], Fault | None], bench: Bench) -> Finding:
    title = (each.__doc__ or each.__name__).strip()
    try:
        fault = each(bench)
    except Skip as skip:
        return Finding(title, "skipped", str(skip))
    except RegbenchError as error:
        return Finding(title, "failed", str(error), error.hint or "")
    except Exception as error:  # the method's own fault, whatever it raised
        text = f"{type(error).__name__}: {error}"
        return Finding(
            title, "failed", text, "see the traceback (regbench check --traceback)", traceback.format_exc()
        )
    if fault is None:
        return Finding(title, "passed")
    return Finding(title, "failed", fault.what, fault.mend)
