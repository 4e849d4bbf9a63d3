"""How figures look: one colour per method throughout a run, sizes for print, reproducible files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from fontTools import subset
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from regbench.store.records import Run

DPI = 200
"""Resolution of whatever is made of pixels; a mosaic is drawn at this one so that nothing is resampled."""
WIDTH = 5.5
"""Default width in inches: the text of a single-column paper; no type below 5 points."""

# Okabe and Ito (2008), colours that stay apart for the colour-blind, darkest first; their yellow is
# left out, because it vanishes on white.
BASELINE = "#3a3a3a"
FAMILIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

# Paul Tol's "muted" scheme for classes, with a grey for the tenth.
CLASSES = (
    *("#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee"),
    *("#aa4499", "#44aa99", "#882255", "#999933", "#777777"),
)

LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (8, 2)))

SETTING_TABLES = frozenset({"GDEF", "GPOS", "GSUB", "kern"})
"""Tables of a font that say how to set text with it: kerning, ligatures, scripts."""

GREY = "#6b6b6b"
FAINT = "#b8b8b8"

PAPER: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that files are the same everywhere
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",
    "svg.hashsalt": "regbench",
}


@contextmanager
def paper() -> Iterator[None]:
    """The style that every figure is drawn and saved in; a plugin's figures inherit it.

    Leaves matplotlib's global settings, a user's own style among them, as they were.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams["backend"] = "agg"
        mpl.rcParams.update(PAPER)  # type: ignore[arg-type]
        yield


@dataclass(frozen=True, slots=True)
class Look:
    """How one method is drawn, in every figure of a run."""

    color: str
    line: Any
    """Line style for matplotlib; tells the members of a family apart without colour."""

    def handle(self) -> Line2D:
        """For a legend."""
        return Line2D([], [], color=self.color, linestyle=self.line)


def looks(run: Run) -> dict[str, Look]:
    """One look per method label, fixed by the run alone.

    The variants of one regularizer (a sweep over K, say) share a hue, from light to dark in the suite's
    order; the baseline's regularizer is grey, darkest first.
    """
    family_of = {
        method: next((c.key["regularizer"]["name"] for c in run.cells if c.method == method), method)
        for method in run.methods
    }
    home = family_of.get(run.suite.get("baseline", ""))
    others = [name for name in dict.fromkeys(family_of.values()) if name != home]
    hues = {name: FAMILIES[i % len(FAMILIES)] for i, name in enumerate(others)}
    if home is not None:
        hues[home] = BASELINE
    found: dict[str, Look] = {}
    for rank, (name, hue) in enumerate(hues.items()):
        members = [method for method in run.methods if family_of[method] == name]
        # Beyond the palette the line style has to tell them apart.
        shift = 0 if name == home else rank // len(FAMILIES)
        for i, method in enumerate(members):
            tone = len(members) - 1 - i if name == home else i
            color = _shade(hue, tone, len(members))
            free = [Look(color, LINES[(i + shift + k) % len(LINES)]) for k in range(len(LINES))]
            found[method] = next((look for look in free if look not in found.values()), free[0])
    return {method: found[method] for method in run.methods}


def _shade(hue: str, index: int, count: int) -> str:
    """From a lighter to a darker tone of a hue; the hue itself for one alone."""
    if count == 1:
        return hue
    tone = 2 * index / (count - 1) - 1
    toward, share = ((1.0, 1.0, 1.0), -0.45 * tone) if tone < 0 else ((0.0, 0.0, 0.0), 0.5 * tone)
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(hue), toward, strict=True))
    return to_hex((red, green, blue))


def plain(text: str) -> str:
    """A name as matplotlib shows it letter by letter: no mathematics, and never dropped from a legend."""
    return re.sub(r"^_", " _", text.replace("$", r"\$"))


def shorten(text: str, letters: int) -> str:
    """``text``, cut to so many letters."""
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def slug(text: str) -> str:
    """A file name's part made of a label: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def save(figure: Canvas, stem: Path) -> tuple[Path, ...]:
    """Write ``stem`` as PNG, PDF and SVG (pixels at 200 dpi), without dates: the same results give the same bytes."""
    if (engine := figure.get_layout_engine()) is not None:  # lay out once, not for each file
        engine.execute(figure)
        figure.set_layout_engine(None)
    png, pdf, svg = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "pdf", "svg"))
    # Level 6, which is usual, takes longer and saves a twelfth of the bytes.
    figure.savefig(png, dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    with _glyphs_only():
        figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None, "Creator": "regbench", "Producer": None})
    figure.savefig(svg, dpi=DPI, metadata={"Date": None, "Creator": "regbench"})
    return png, pdf, svg


@contextmanager
def _glyphs_only() -> Iterator[None]:
    """Fonts embedded in a PDF inside the block lack the tables that only help to set text, which is set already.

    To take these apart for every font of every file took half the time of a PDF. Should matplotlib come to load its
    fonts in another way, they are embedded as they were before.
    """
    before = subset.load_font

    def load_bare(*arguments: Any, **options: Any) -> Any:
        font = before(*arguments, **options)
        for table in SETTING_TABLES & {*font.keys()}:
            del font[table]
        return font

    subset.load_font = load_bare
    try:
        yield
    finally:
        subset.load_font = before
