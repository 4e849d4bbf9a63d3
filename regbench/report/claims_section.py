"""Claims and their verdicts as the part of the report that stands first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from regbench.report.claims import Element, JudgedClaim, claimed
from regbench.report.numbers import NOTHING, signed
from regbench.report.section import Grid, Section
from regbench.report.table import Cell
from regbench.statistics import ALPHA, Verdict

VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "undecided")


def claims_section(claims: Sequence[JudgedClaim]) -> Section | None:
    """The suite's claims, each with its verdict; ``None`` where the suite claims nothing."""
    if not claims:
        return None
    counts = Counter(claim.verdict for claim in claims)
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    return Section(
        id="claims",
        title="Claims",
        text=f"What the suite's file claims, and what the results say of it: {listed}.",
        grids=(_verdicts(claims), _elements(claims)),
        frame=_frame(claims),
        file="claims",
        lead=True,
    )


def claim_lines(claims: Sequence[JudgedClaim]) -> Iterator[tuple[str, str]]:
    """Each claim as its verdict and the rest of one line of text."""
    for claim in claims:
        parts = [f"{_who(claim.deciding)}: {_difference(claim.deciding).text}"]
        if claim.p is not None:
            parts.append(f"p = {claim.p:.2g}")
        if claim.verdict == "undecided":
            parts.append(f"seeds needed: {_needed(claim).text}")
        yield claim.verdict, f"{claim.statement} ({'; '.join(parts)})"


def _verdicts(claims: Sequence[JudgedClaim]) -> Grid:
    rows = tuple(
        (
            Cell(str(place), float(place)),
            Cell(claim.statement),
            Cell(claim.verdict),
            Cell(_who(claim.deciding)),
            _difference(claim.deciding),
            Cell(claimed(claim.deciding)),
            Cell(NOTHING) if claim.p is None else Cell(f"{claim.p:.2g}", claim.p),
            _seeds(claim),
            _needed(claim),
        )
        for place, claim in enumerate(claims, 1)
    )
    columns = ("no.", "claim", "verdict", "decided by", "Δ", "claimed", "p", "seeds", "seeds needed")
    return Grid("Verdicts", columns, rows, tuple(_notes(claims)))


def _elements(claims: Sequence[JudgedClaim]) -> Grid:
    rows = tuple(
        (
            Cell(str(place), float(place)),
            Cell(element.dataset),
            Cell(element.metric),
            Cell(element.method),
            Cell(element.reference),
            _difference(element),
            Cell(claimed(element)),
            *(
                Cell(NOTHING, note=element.reason) if p is None else Cell(f"{p:.2g}", p)
                for p in (element.p_support, element.p_refute)
            ),
        )
        for place, claim in enumerate(claims, 1)
        for element in claim.elements
    )
    columns = ("no.", "data set", "metric", "method", "reference", "Δ", "claimed", "p support", "p refute")
    notes = (
        "Every comparison that a claim consists of, under the claim's number; p-values before the adjustment "
        "for other comparisons and claims.",
    )
    return Grid("Comparisons", columns, rows, notes)


def _notes(claims: Sequence[JudgedClaim]) -> Iterator[str]:
    count = len(claims)
    yield (
        "Δ: method minus reference at the mean code, mean over the seeds that both have, with its 95% t-interval; of "
        "the comparison that refutes the claim, or else of the one that is hardest to support."
    )
    yield (
        "supported: shown to hold in every comparison. refuted: shown not to hold in some comparison. undecided: "
        "neither; that is no evidence for either."
    )
    yield (
        f"p: one-sided paired t-tests over seeds; to support, the largest of the comparisons' p-values (intersection-"
        f"union test), to refute, the smallest times their number; the smaller of both times the {count} "
        f"claim{'s' if count > 1 else ''} of the suite (Bonferroni). A verdict needs p < {ALPHA}, and any verdict of "
        f"this table is wrong with a probability of {100 * ALPHA:g}% at most."
    )
    yield (
        "seeds needed: at which 80% of such experiments would decide, if differences and spreads are the observed ones."
    )
    if any(element.margin is not None for claim in claims for element in claim.elements):
        yield (
            "Margins are those of the suite's file, where they stand before any result; whoever moves them afterwards "
            "gives the error rates up. One that is a share of a method's mean is tested as such, with that mean's "
            "own spread; what is printed is its estimate."
        )
    if any(element.says == "differs" for claim in claims for element in claim.elements):
        yield "A difference in either direction (Δ ≠ 0) can be supported, never refuted."
    for place, claim in enumerate(claims, 1):
        if claim.reasons:
            yield f"Claim {place}, not tested in full: {'; '.join(claim.reasons)}."


def _who(element: Element) -> str:
    return f"{element.metric} of {element.method} − {element.reference}, {element.dataset}"


def _difference(element: Element) -> Cell:
    found = element.difference
    if found is None:
        return Cell(NOTHING)
    return Cell(signed(found.mean, found.low, found.high), found.mean, found.low, found.high)


def _seeds(claim: JudgedClaim) -> Cell:
    fewest = min(claim.elements, key=lambda element: element.n)
    return Cell(f"{fewest.n}/{fewest.planned}", float(fewest.n))


def _needed(claim: JudgedClaim) -> Cell:
    if claim.needed is None:
        return Cell(NOTHING)
    if math.isinf(claim.needed):
        return Cell("more than 10,000", math.inf)
    return Cell(f"{claim.needed:,.0f}", claim.needed)


def _frame(claims: Sequence[JudgedClaim]) -> pd.DataFrame:
    """One row per comparison, with its claim's verdict."""
    records = []
    for place, claim in enumerate(claims, 1):
        for element in claim.elements:
            found = element.difference
            records.append(
                {
                    "claim": place,
                    "statement": claim.statement,
                    "kind": claim.claim.kind,
                    "metric": claim.claim.metric,
                    "verdict": claim.verdict,
                    "p": claim.p,
                    "seeds_needed": claim.needed,
                    "decides": element is claim.deciding,
                    "dataset": element.dataset,
                    "method": element.method,
                    "reference": element.reference,
                    "claimed": element.says,
                    "margin": element.width,
                    "n": element.n,
                    "planned": element.planned,
                    "difference": found.mean if found else None,
                    "sd": found.sd if found else None,
                    "low": found.low if found else None,
                    "high": found.high if found else None,
                    "p_support": element.p_support,
                    "p_refute": element.p_refute,
                    "reason": element.reason,
                }
            )
    return pd.DataFrame(records)
