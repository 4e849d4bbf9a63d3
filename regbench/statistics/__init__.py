"""Intervals, paired tests, equivalence, tie groups and verdicts for a handful of seeds. No torch, no pandas.

Everything here is about the spread over *seeds*: the values are one number per seed, and methods are paired
by seed, because all methods of a seed see the same data order and start from the same network. The spread
over test images is another question, and no function here mixes the two.

An interval bound or a p-value is ``None`` where it does not exist: with one seed, or with values that are
not finite (the PSNR of a perfect reconstruction is infinite).
"""

from __future__ import annotations

from regbench.statistics.across import Improvement, average_ranks, improvement, normalised
from regbench.statistics.claims import (
    Bound,
    Hypothesis,
    Judgement,
    Side,
    Verdict,
    better_than,
    claim_needed_seeds,
    differs,
    judge,
    within,
)
from regbench.statistics.equivalence import (
    Equivalence,
    t_test_needed_seeds,
    t_test_power,
    tost_needed_seeds,
    tost_paired,
    tost_power,
)
from regbench.statistics.frontier import best_at, frontier_area, matched_levels, pareto
from regbench.statistics.intervals import (
    ALPHA,
    LEVEL,
    Better,
    Interval,
    PairedDifference,
    paired_difference,
    share_seeds,
    t_interval,
    t_intervals,
)
from regbench.statistics.rerun import Agreement, Rerun, rerun_agreement, rerun_half_width
from regbench.statistics.significance import (
    Alternative,
    holm,
    min_seeds,
    paired_t_test,
    sign_flip_test,
    tie_group,
    welch_t_test,
    wilcoxon_test,
)

__all__ = [
    "ALPHA",
    "LEVEL",
    "Agreement",
    "Alternative",
    "Better",
    "Bound",
    "Equivalence",
    "Hypothesis",
    "Improvement",
    "Interval",
    "Judgement",
    "PairedDifference",
    "Rerun",
    "Side",
    "Verdict",
    "average_ranks",
    "best_at",
    "better_than",
    "claim_needed_seeds",
    "differs",
    "frontier_area",
    "holm",
    "improvement",
    "judge",
    "matched_levels",
    "min_seeds",
    "normalised",
    "paired_difference",
    "paired_t_test",
    "pareto",
    "rerun_agreement",
    "rerun_half_width",
    "share_seeds",
    "sign_flip_test",
    "t_interval",
    "t_intervals",
    "t_test_needed_seeds",
    "t_test_power",
    "tie_group",
    "tost_needed_seeds",
    "tost_paired",
    "tost_power",
    "welch_t_test",
    "wilcoxon_test",
    "within",
]
