from __future__ import annotations

import io
import re
import zlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import matplotlib as mpl
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas

from regbench.report.style import CLASSES, looks, paper, plain, save, slug
from regbench.store.records import Run
from tests.report.synthetic import make_run

MANY = ["AE", "VAE-KL", "InfoVAE-MMD", *(f"ProtoVAE K={k}" for k in (1, 2, 5, 10, 20, 30, 50))]


def test_every_method_has_its_own_look_whatever_the_data_set(tmp_path: Path) -> None:
    run = make_run(tmp_path / "many", MANY, ["one", "two"], seeds=1)
    found = looks(run)
    assert list(found) == MANY
    assert len({look.color for look in found.values()}) == len(MANY)
    again = looks(make_run(tmp_path / "again", MANY, ["three"], seeds=2))
    assert {m: (look.color, look.line) for m, look in again.items()} == {
        m: (look.color, look.line) for m, look in found.items()
    }


def test_a_sweep_goes_from_light_to_dark_in_one_hue(tmp_path: Path) -> None:
    found = looks(make_run(tmp_path / "many", MANY, ["one"], seeds=1))
    brightness = [sum(to_rgb(found[method].color)) for method in MANY if method.startswith("Proto")]
    assert brightness == sorted(brightness, reverse=True)
    lines = [str(found[method].line) for method in MANY if method.startswith("Proto")]
    assert all(a != b for a, b in pairwise(lines))


def test_far_more_methods_than_colours_still_look_different() -> None:
    """Sweeps of three lie among single methods, so that middle tones and hues meet."""
    labels = {"AE": "ae"}
    labels |= {f"swept{i} {k}": f"swept{i}" for i in range(12) for k in (1, 2, 3)}
    labels |= {f"single{i}": f"single{i}" for i in range(6)}
    cells = [SimpleNamespace(method=m, key={"regularizer": {"name": name}}) for m, name in labels.items()]
    run = SimpleNamespace(methods=tuple(labels), cells=cells, suite={"baseline": "AE"})
    found = looks(cast("Run", run))
    assert len({(look.color, str(look.line)) for look in found.values()}) == len(labels)
    assert found["AE"].line == "-"


def test_colours_stand_out_from_white_paper(tmp_path: Path) -> None:
    found = looks(make_run(tmp_path / "many", MANY, ["one"], seeds=1))
    for colour in [*(look.color for look in found.values()), *CLASSES]:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
        assert 1.05 / (luminance + 0.05) > 1.5, colour  # WCAG contrast


@pytest.mark.parametrize("name", ["a $\\beta_1$ b", "$100", "_hidden", "100%", "a\\$b", "\\frac"])
def test_names_are_drawn_letter_by_letter(name: str) -> None:
    with paper():
        canvas = Canvas()
        shown = canvas.text(0, 0, plain(name))
        canvas.draw_without_rendering()
        text, is_math = shown._preprocess_math(shown.get_text())
    assert not is_math
    assert text.lstrip() == name
    assert not plain(name).startswith("_")


@pytest.mark.parametrize(
    ("label", "expected"), [("CIFAR-10", "cifar-10"), ("a  b/c", "a-b-c"), ("数字", "x"), ("-x-", "x")]
)
def test_slug(label: str, expected: str) -> None:
    assert slug(label) == expected


def test_the_style_is_left_behind_and_ignores_the_users_own() -> None:
    with mpl.rc_context({"font.size": 31, "text.usetex": True}):
        with paper():
            assert mpl.rcParams["font.size"] == 7
            assert not mpl.rcParams["text.usetex"]
        assert mpl.rcParams["font.size"] == 31


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    def draw(stem: Path) -> list[bytes]:
        with paper():
            canvas = Canvas(figsize=(2, 1), layout="constrained")
            ax = canvas.subplots()
            ax.plot([1, 2], [3, 4])
            ax.set_title("title")
            return [file.read_bytes() for file in save(canvas, stem)]

    png, pdf, svg = first = draw(tmp_path / "a")
    assert first == draw(tmp_path / "b")
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert b"<svg" in svg
    assert int.from_bytes(png[16:20], "big") == 2 * 200  # 200 dpi


def test_fonts_in_a_pdf_have_glyphs_and_nothing_to_set_text_with(tmp_path: Path) -> None:
    before = subset.load_font
    with paper():
        canvas = Canvas(figsize=(2, 1))
        canvas.text(0.1, 0.5, "AVATAR fi")
        _, pdf, _ = save(canvas, tmp_path / "a")
    assert subset.load_font is before
    streams = re.findall(rb"/Length1 \d+.*?stream\r?\n(.*?)\r?\nendstream", pdf.read_bytes(), re.S)
    fonts = [TTFont(io.BytesIO(zlib.decompress(stream))) for stream in streams]
    assert fonts
    for font in fonts:
        assert {"glyf", "loca", "hmtx", "head"} <= {*font.keys()}
        assert not {"GSUB", "GPOS", "GDEF", "kern"} & {*font.keys()}
