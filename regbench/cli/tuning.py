"""What ``regbench plan`` shows of a suite's tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regbench.resolve import Plan
    from regbench.tuning.study import Study


def show_tuning(console: Any, ready: Plan, costs: Any) -> None:
    """The budget, one line for each method and data set, and where budgets are not equal."""
    from rich.table import Table
    from rich.text import Text

    from regbench.cli.progress import duration

    tuning = ready.studies[0].tuning
    console.print(
        f"tuning: {tuning.trials} trials for each method and data set; selected is the best {tuning.metric} on the "
        f"held-out images ({ready.studies[0].better} is better)",
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("data set", "method", "searched", "trials", "missing", "selected", "time per trial"):
        table.add_column(column, overflow="fold")
    for study in ready.studies:
        cost = costs.get(study.place)
        row = [
            *study.place,
            ", ".join(parameter.key for parameter in study.space),
            str(len(study.trials)),
            str(study.pending),
            _selected(study),
            "" if cost is None else duration(cost.seconds),
        ]
        table.add_row(*(Text(text) for text in row))
    console.print(table)
    idle = dict.fromkeys(study.base.method for study in ready.studies if not study.space)
    if idle:
        console.print(f"{UNEQUAL} {', '.join(idle)}", markup=False)


UNEQUAL = "without trials, as nothing of it is searched, so that the budgets are not equal:"


def _selected(study: Study) -> str:
    from regbench.cli.progress import settings

    if study.failed:
        return "nothing: all trials failed"
    if study.best is None:
        return ""
    return f"{settings(study.best.values)} (trial {study.best.number}, {study.best.value:.4g})"
