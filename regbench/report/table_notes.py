"""What stands under a table: definitions, what the intervals show, which tests were made."""

from __future__ import annotations

from collections.abc import Iterator

from regbench.report.numbers import plain
from regbench.report.summary import MIXABLE, Summary
from regbench.report.table import Note
from regbench.statistics import min_seeds


def table_notes(summary: Summary) -> Iterator[Note]:
    """What the numbers mean: definitions, intervals, bold type, tests."""
    directions = {"lower": " (lower is better)", "higher": " (higher is better)", None: ""}
    for quantity in summary.quantities:
        if quantity.definition and quantity.group == "metric":
            definition = quantity.definition.rstrip(".")
            yield Note(f"{quantity.label}{directions[quantity.better]}: {definition}.", groups=("metric",))
    largest = max((row.done for row in summary.rows), default=0)
    yield Note("n: seeds done / seeds planned.")
    if largest == 1:
        yield Note("n = 1, no interval: one seed says nothing about the spread, and nothing is in bold.")
    elif largest > 1:
        yield Note(
            "±: 95% t-interval of the mean over seeds. It shows how trainings differ, not how test images "
            "do; a value without ± comes from one seed or is the same for all."
        )
    if any(entry.tie for entry in summary.entries.values()):
        yield Note(
            "Bold: the tie group of the best, i.e. every method that may be the best at 95% confidence "
            "(one-sided paired t-tests over seeds, Bonferroni over a method's comparisons; at the mean code, "
            "among the methods with the most finished seeds).",
            groups=("metric",),
        )
    if any(row.stochastic for row in summary.rows):
        yield Note(
            "Mean code: decoded from the mean of q(z|x); sampled code: from one sample of it.",
            groups=("metric", "difference"),
        )
    yield from _difference_notes(summary)
    yield from _environment_notes(summary)
    yield from _anchor_notes(summary)
    yield from _source_notes(summary)
    if summary.classifier is not None:
        yield Note(
            f"The suite's classifier, in whose features samples are judged: test accuracy "
            f"{plain(summary.classifier['accuracy'])}, SHA-256 {summary.classifier['sha256'][:12]}. Its distances say "
            "nothing outside of this suite.",
            groups=("samples",),
        )
    for quantity in summary.quantities:
        shown = any(summary.entry(row, quantity).interval for row in summary.rows)
        if quantity.group not in ("metric", "cost") and quantity.definition and shown:
            yield Note(f"{quantity.label}: {quantity.definition}.", groups=(quantity.group,))


def _difference_notes(summary: Summary) -> Iterator[Note]:
    if summary.baseline is None:
        return
    differences = [entry.difference for entry in summary.entries.values() if entry.difference]
    if not differences:
        yield Note(f"Δ: no seed of {summary.baseline} to compare with.", groups=("difference",))
        return
    yield Note(
        f"Δ: the row minus {summary.baseline} (mean code) over the seeds that both have, with its 95% "
        "t-interval; wins: seeds at which the row is better.",
        groups=("difference",),
    )
    correlations = sorted(d.correlation for d in differences if d.correlation is not None)
    if correlations:
        yield Note(
            f"Correlation of the pairs: {correlations[0]:.2f} to {correlations[-1]:.2f}, "
            f"median {correlations[len(correlations) // 2]:.2f}.",
            groups=("difference",),
        )
    family, pairs = max(summary.comparisons.values()), max(d.n for d in differences)
    if family and pairs < min_seeds(family):
        yield Note(
            f"n too small to test: {pairs} seeds, and an exact paired test of {family} comparisons "
            f"needs {min_seeds(family)}.",
            groups=("difference",),
        )
    elif family:
        yield Note(
            "p: exact sign-flip test of the paired differences, Holm-adjusted over the comparisons of "
            f"its metric ({family}).",
            groups=("difference",),
        )


def _environment_notes(summary: Summary) -> Iterator[Note]:
    for kind in MIXABLE:
        methods: dict[str, list[str]] = {}
        for row in summary.rows:
            if row.code == "mean" and row.environment[kind]:
                methods.setdefault("+".join(row.environment[kind]), []).append(row.method)
        if len(methods) > 1:
            listed = "; ".join(f"{value}: {', '.join(names)}" for value, names in methods.items())
            yield Note(f"Rows differ in {kind} ({listed}): costs, and small differences, may come from that.")


def _source_notes(summary: Summary) -> Iterator[Note]:
    """What samples were drawn from, which differs between methods: a prior, or what was fitted to their codes."""
    methods: dict[str, dict[str, None]] = {}
    for row in summary.rows:
        for source in row.samples_from:
            methods.setdefault(source, {})[row.method] = None
    if methods:
        listed = "; ".join(f"{source} ({', '.join(names)})" for source, names in methods.items())
        yield Note(f"Samples are drawn from: {listed}.", groups=("samples",))


def _anchor_notes(summary: Summary) -> Iterator[Note]:
    if (summary.classifier or {}).get("clusters_pixels"):
        yield Note("pixels: k-means on pixels, with as many clusters as classes.", groups=("clusters",))
    anchors = summary.anchors
    if anchors is None:
        return
    if anchors.get("pca_mse_clipped") is not None:
        yield Note(
            f"PCA-{anchors['pca_components']}: {plain(anchors['pca_mse_clipped'])} after clipping to [0, 1].",
            groups=("metric",),
        )
    if anchors.get("pixel_entropy") is not None:
        yield Note(
            f"Pixel entropy H(x): {plain(anchors['pixel_entropy'])} nats per image.", groups=("metric",)
        )
