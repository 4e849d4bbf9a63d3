"""All methods side by side, in a table that is made from the plugins themselves.

    python -m regbench.overview docs/methods.md

writes it anew between the two marks, for all methods that are installed.

Shape suffixes: B batch, C channels, H height, W width; N, M, P sides of matrices.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import inspect
import io
import math
import sys
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from regbench.api import Dims, Regularizer
from regbench.errors import PluginError, RegbenchError, UsageError
from regbench.evaluation.samples import FITTED
from regbench.model import Model
from regbench.nets import NetShape, SharedAutoencoder
from regbench.plugins import Plugin, registry
from regbench.regularizers.ae import AE
from regbench.suite import schema
from regbench.suite.widths import resolve_widths
from regbench.training.discover import parameters_of

BEGIN = "<!-- methods: made by python -m regbench.overview docs/methods.md, with the packages in plugins/ installed -->"
END = "<!-- end of methods -->"

SIDE, CHANNELS, BATCH, IMAGES = 28, 1, 256, 55_000
"""What is counted is counted for training on MNIST as in ``suites/paper.toml``."""
NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)
COLUMNS = (
    "method",
    "package",
    "what is regularized",
    "prior",
    "new codes from",
    "code",
    "steps",
    "work",
    "parameters",
    "kept besides",
    "lines",
)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a method with its default options takes in the shared net, for MNIST at the default sizes."""

    steps: int
    """Optimizer steps per batch."""
    operations: int
    """Floating-point operations per batch in layers and matrix products, forward and backward."""
    parameters: int
    """Of the method itself, learned by gradient, those for a distribution it trains afterwards included."""
    kept: int
    """Numbers in the method's buffers: codebooks, targets, fitted densities."""
    stochastic: bool


def reference_shape() -> NetShape:
    """The shared net of a suite that says nothing about it, for MNIST."""
    sizes = schema.Model()
    return NetShape(CHANNELS, SIDE, sizes.latent, sizes.features, resolve_widths(SIDE, None), sizes.kernel)


@functools.cache
def count(method: type[Regularizer]) -> Counted:
    """Build the method and run one batch of its steps on tensors without contents: nothing is computed."""
    shape = reference_shape()
    with FakeTensorMode():
        dims = Dims(shape.latent, shape.features, shape.channels, shape.side, IMAGES)
        model = Model(SharedAutoencoder(shape), method(method.Options(), dims))
        x_BCHW, model.index_B = torch.rand(BATCH, CHANNELS, SIDE, SIDE), torch.arange(BATCH)
        steps = 0
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.regbench.ieee_matmul: _matmul})
        counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        with counter:
            for update in model.regularizer.steps(model, x_BCHW):
                torch.autograd.grad(update.loss, parameters_of(update.updates))
                steps += 1
        own = model.regularizer
        saved = own.state_dict()
        return Counted(
            steps,
            counter.get_total_flops(),
            sum(parameter.numel() for parameter in own.parameters()),
            sum(buffer.numel() for name, buffer in own.named_buffers() if name in saved),
            bool(own.stochastic),
        )


class _NoModules(contextlib.nullcontext[None]):
    """Counts everything as one. torch's own attribution to modules refuses gradients by an image, as penalties take."""

    parents = ("Global",)


def _matmul(a_NM: Sequence[int], b_MP: Sequence[int], **_: Any) -> int:
    """Operations of regbench's own matrix product, from its shapes."""
    return 2 * math.prod(a_NM) * b_MP[1]


def lines_of_code(method: type[Regularizer]) -> int:
    """Lines of the file that defines the method, without blank ones, comments and docstrings."""
    source = inspect.getsource(sys.modules[method.__module__])
    texts = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - texts)


def table(plugins: Iterable[Plugin], home: Path | None = None) -> str:
    """The methods as a Markdown table; packages below ``home``/plugins are linked from a page in ``home``/docs."""
    ae = count(AE).operations
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [_row(plugin, ae, home) for plugin in plugins]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _row(plugin: Plugin, ae: int, home: Path | None) -> tuple[str, ...]:
    method: type[Regularizer] = plugin.cls
    try:
        found = count(method)
    except Exception as error:
        raise PluginError(
            f"{method.name} ({plugin.origin}): a step with its default options cannot be counted: "
            f"{type(error).__name__}: {error}",
            hint="it is run on tensors without contents, so no value may be read; regbench check says where one is",
        ) from error
    return (
        _named(method),
        _origin(plugin, home),
        method.regularizes or "–",
        method.prior or "none",
        _sampler(method),
        "random" if found.stochastic else "fixed",
        str(found.steps),
        f"{found.operations / ae:.2f}",
        f"{found.parameters:,}",
        f"{found.kept:,}",
        str(lines_of_code(method)),
    )


def _origin(plugin: Plugin, home: Path | None) -> str:
    readme = Path("plugins", plugin.distribution, "README.md")
    linked = home is not None and (home / readme).is_file()
    return f"[{plugin.distribution}](../{readme.as_posix()})" if linked else plugin.distribution


def _named(method: type[Regularizer]) -> str:
    """The method's name, with a link to its paper where that is an arXiv number or a DOI."""
    kind, _, number = method.paper.partition(":")
    home = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}.get(kind)
    return f"[`{method.name}`]({home}{number})" if home and number else f"`{method.name}`"


def _sampler(method: type[Regularizer]) -> str:
    if method.prior:
        return "its prior"
    if method.ex_post:
        return f"ex post: {method.ex_post}"
    return f"ex post, by regbench: {FITTED}"


def updated(page: str, plugins: Iterable[Plugin], home: Path | None = None) -> str:
    """The page with its table written anew. Raises ``UsageError`` for a page without the two marks."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise UsageError(
            "the page does not have the two marks, each once and in their order",
            hint=f"put these two lines where the table belongs:\n{BEGIN}\n{END}",
        )
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(plugins, home)}\n\n{END}{after}"


def write(page: Path) -> None:
    """Write the table of all methods that are installed into a page."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{page}: {error}", hint="give the path of a Markdown page") from error
    found = registry()
    if found.broken:
        reasons = "".join(f"\n  {broken.origin}: {broken.reason}" for broken in found.broken)
        raise PluginError(
            f"methods would be missing, as there are broken plugins:{reasons}",
            hint="regbench plugins --traceback shows where they broke",
        )
    page.write_text(
        updated(text, found.regularizers.values(), page.absolute().parent.parent), encoding="utf-8"
    )


def main(arguments: Sequence[str]) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m regbench.overview",
        description="Write a table of all methods that are installed into a Markdown page, between its two marks.",
    )
    parser.add_argument("page", type=Path, metavar="PAGE", help="such as docs/methods.md")
    page: Path = parser.parse_args(arguments).page
    try:
        write(page)
    except RegbenchError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
