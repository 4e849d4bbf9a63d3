"""What to try next: Optuna's, asked and told one trial at a time, in memory.

The sampler is seeded, so that the same answers lead to the same questions: a study that was interrupted is asked
once more from the start, and its finished trials are found in the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from regbench.errors import UsageError
from regbench.suite.space import Parameter, Space, whole_number

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_RANDOM = 10
"""Trials at the start that are drawn at random: half of the budget, and at most so many."""


class Sampler:
    """A tree-structured Parzen estimator (Bergstra et al. 2011) over one search space."""

    def __init__(self, space: Space, trials: int, seed: int, better: str, start: Mapping[str, Any]) -> None:
        """``start``: what the first trial tries, by the keys of some parameters; the others are drawn for it, too."""
        import_optuna()
        import optuna

        self._distributions = {parameter.key: _distribution(parameter) for parameter in space}
        with _quiet():
            self._study = optuna.create_study(
                direction="minimize" if better == "lower" else "maximize",
                sampler=optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=min(MOST_RANDOM, (trials + 1) // 2)
                ),
            )
            if start:
                self._study.enqueue_trial(dict(start))
        self._trial: Any = None

    def ask(self) -> dict[str, Any]:
        """What the next trial tries, by the parameters' keys."""
        with _quiet():
            self._trial = self._study.ask(self._distributions)
        return {key: self._trial.params[key] for key in self._distributions}

    def tell(self, value: float | None) -> None:
        """How the trial that was asked for last has ended; ``None``: it failed."""
        from optuna.trial import TrialState

        with _quiet():
            if value is None:
                self._study.tell(self._trial, state=TrialState.FAIL)
            else:
                self._study.tell(self._trial, value)


def import_optuna() -> str:
    """The version of Optuna; raises ``UsageError`` where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError(
            f"the suite has a [tuning] table, and Optuna cannot be imported: {error}",
            hint="pip install 'regbench[tuning]'",
        ) from error
    return str(optuna.__version__)


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    search = parameter.search
    if search.choices is not None:
        return CategoricalDistribution(search.choices)
    assert search.low is not None  # Search sees to that
    assert search.high is not None
    if parameter.whole:
        return IntDistribution(int(whole_number(search.low)), int(whole_number(search.high)), log=search.log)
    return FloatDistribution(search.low, search.high, log=search.log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs each trial by itself; regbench shows them its own way."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
