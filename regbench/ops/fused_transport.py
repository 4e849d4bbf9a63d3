"""Sinkhorn's iterations as one Triton kernel: one program, the matrix in its registers.

Imported where a tensor on a CUDA device asks for it, and nowhere else: Triton exists for few platforms.

Rows are samples, columns prototypes, both padded. A block of rows has the shape (GROUPS, ROWS, LANES), where
column = group * LANES + lane: 8 columns by 4 rows then lie on the 32 threads of a warp, so that sums along rows
and along columns take about equally few exchanges between threads. In vectors over columns, (GROUPS, LANES),
padding is kept at the value that a column in equilibrium has.

Shape suffixes: B batch, K prototypes; R rows of a block, C columns as (GROUPS, LANES).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

HELD = 1 << 14
"""Padded elements that one program holds in its registers: up to 64 per thread, beside as many temporaries."""

# Triton's interpreter, which tests without a GPU use, knows no assembly.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
LANES = tl.constexpr(8)
# What is seldom done takes so many elements at a time: more would cost the rest its registers.
FEW = tl.constexpr(1 << 12)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# A column that has less of its share has lost terms that were rounded to zero: it is taken in the log domain.
LEAST_MASS = tl.constexpr(1e-20)
# Scalings of at most this, and at least its inverse, times exponentials of at most 1 lose no digits.
LARGEST_SCALING = tl.constexpr(1e8)


@triton.jit
def _log2(values):
    """The GPU's own instruction, within 2^-22, in place of a polynomial."""
    if INTERPRETED:
        return tl.log2(values)
    return tl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [values], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _inverse(values):
    """The GPU's own instruction, within 1 ulp, in place of a division."""
    if INTERPRETED:
        return 1 / values
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [values], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _total(values_C):
    return tl.sum(tl.sum(values_C, axis=0), axis=0)


@triton.jit
def _row_sums(values):
    return tl.sum(tl.sum(values, axis=0), axis=1)


@triton.jit
def _places(first, batch, prototypes, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """Offsets of a block's elements, their columns and which of them exist, group by group: (GROUPS * ROWS, LANES).

    In two dimensions, because versions of Triton differ in how they lay loads of three over the threads.
    """
    lines = tl.arange(0, GROUPS * ROWS)[:, None]
    rows = first + lines % ROWS
    columns = (lines // ROWS) * LANES + tl.arange(0, LANES)[None, :]
    return rows * prototypes + columns, columns, (rows < batch) & (columns < prototypes)


@triton.jit
def _read(scores_ptr, first, batch, prototypes, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """Scores of a block, 0 in rows of padding and -inf in columns of padding; and which rows exist, 1 or 0."""
    offsets, columns, inside = _places(first, batch, prototypes, ROWS, GROUPS)
    scores = tl.load(scores_ptr + offsets, mask=inside, other=0.0)
    scores = tl.where(columns < prototypes, scores, float("-inf"))
    real_R = (first + tl.arange(0, ROWS) < batch).to(tl.float32)
    return tl.reshape(scores, (GROUPS, ROWS, LANES)), real_R


@triton.jit
def _write(codes_ptr, codes, first, batch, prototypes, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    offsets, _, inside = _places(first, batch, prototypes, ROWS, GROUPS)
    tl.store(codes_ptr + offsets, tl.reshape(codes, (GROUPS * ROWS, LANES)), mask=inside)


@triton.jit
def _logits(scores, potentials_C, width):
    """log2 of exp((scores + potentials) / width), less each row's largest."""
    rate = LOG2_E / width
    raised = scores * rate + (potentials_C * rate)[:, None, :]
    return raised - tl.max(tl.max(raised, axis=0), axis=1)[None, :, None]


@triton.jit
def _softmax(scores, real_R, potentials_C, width):
    """Softmax along the rows; 0 in rows of padding."""
    exponentials = tl.exp2(_logits(scores, potentials_C, width))
    return exponentials * (real_R * _inverse(_row_sums(exponentials)))[None, :, None]


@triton.jit
def _masses(
    scores_ptr,
    potentials_C,
    width,
    batch,
    prototypes,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Masses of the columns, of rows that sum to 1."""
    masses_C = tl.zeros((GROUPS, LANES), tl.float32)
    for first in range(0, batch, ROWS):
        scores, real_R = _read(scores_ptr, first, batch, prototypes, ROWS, GROUPS)
        masses_C += tl.sum(_softmax(scores, real_R, potentials_C, width), axis=1)
    return masses_C


@triton.jit
def _log_masses(
    scores_ptr,
    potentials_C,
    width,
    real_C,
    batch,
    prototypes,
    GROUPS: tl.constexpr,
    NORMALISED: tl.constexpr,
):
    """log2 of the columns' masses over their share, in the log domain; of rows that sum to 1 if NORMALISED."""
    ROWS: tl.constexpr = FEW // (GROUPS * LANES)
    largest_C = tl.full((GROUPS, LANES), -1e30, tl.float32)  # finite: columns of padding are -inf
    sums_C = tl.zeros((GROUPS, LANES), tl.float32)
    for first in range(0, batch, ROWS):
        scores, real_R = _read(scores_ptr, first, batch, prototypes, ROWS, GROUPS)
        if NORMALISED:
            logits = _logits(scores, potentials_C, width)
            logits -= tl.log2(_row_sums(tl.exp2(logits)))[None, :, None]
        else:
            logits = (scores + potentials_C[:, None, :]) * (LOG2_E / width)
        logits = tl.where(real_R[None, :, None] > 0, logits, float("-inf"))
        larger_C = tl.maximum(largest_C, tl.max(logits, axis=1))
        sums_C *= tl.exp2(largest_C - larger_C)
        sums_C += tl.sum(tl.exp2(logits - larger_C[:, None, :]), axis=1)
        largest_C = larger_C
    log_share = tl.log2(batch.to(tl.float32) / prototypes)
    return tl.where(real_C > 0, largest_C + tl.log2(sums_C) - log_share, 0.0)


@triton.jit
def _span(scores_ptr, batch, prototypes, GROUPS: tl.constexpr):
    """Range of the scores."""
    ROWS: tl.constexpr = FEW // (GROUPS * LANES)
    largest, least = float("-inf"), float("inf")
    for first in range(0, batch, ROWS):
        offsets, _, inside = _places(first, batch, prototypes, ROWS, GROUPS)
        largest = tl.maximum(largest, tl.max(tl.load(scores_ptr + offsets, mask=inside, other=float("-inf"))))
        least = tl.minimum(least, tl.min(tl.load(scores_ptr + offsets, mask=inside, other=float("inf"))))
    return largest - least


@triton.jit
def _raised(potentials_C, log_masses_C, total, width, real_C, prototypes):
    """The potentials that give every column its share, were the rows left alone."""
    # A constant, here the mean, changes nothing, and would drift.
    return potentials_C + width * LN_2 * (real_C * (total / prototypes) - log_masses_C)


@triton.jit
def _iterated(
    scores_ptr,
    scores,
    real_R,
    potentials_C,
    real_C,
    span,
    epsilon,
    annealed,
    iterations,
    batch,
    prototypes,
    ONE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Potentials after ``iterations``, in the first ``annealed`` of which the width falls from the span to epsilon.

    An exponential per element each. ``scores`` is all of them if ONE_BLOCK, and of no use otherwise.
    """
    per_share = prototypes / batch.to(tl.float32)
    stretch = tl.log2(span / epsilon)
    for iteration in range(iterations):
        left = tl.maximum(annealed - iteration, 0).to(tl.float32) / tl.maximum(annealed, 1)
        width = epsilon * tl.exp2(left * stretch)
        if ONE_BLOCK:
            masses_C = tl.sum(_softmax(scores, real_R, potentials_C, width), axis=1)
        else:
            masses_C = _masses(scores_ptr, potentials_C, width, batch, prototypes, ROWS, GROUPS)
        masses_C = masses_C * per_share + (1 - real_C)
        log_masses_C = _log2(tl.where(masses_C < LEAST_MASS, 0.0, masses_C))
        total = _total(log_masses_C)
        if not (total > float("-inf")):  # NaN included
            log_masses_C = _log_masses(
                scores_ptr, potentials_C, width, real_C, batch, prototypes, GROUPS, NORMALISED=True
            )
            total = _total(log_masses_C)
        potentials_C = _raised(potentials_C, log_masses_C, total, width, real_C, prototypes)
    return potentials_C


@triton.jit
def _scaled(
    scores_ptr,
    potentials_C,
    real_C,
    epsilon,
    iterations,
    batch,
    prototypes,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Potentials after ``iterations`` at one width, as scalings of the columns of fixed exponentials.

    Two products per element take the place of an exponential. Where the scalings leave their range, one iteration
    is done in the log domain, and new exponentials are taken.
    """
    per_share = prototypes / batch.to(tl.float32)
    scores, real_R = _read(scores_ptr, 0, batch, prototypes, ROWS, GROUPS)
    fixed = tl.exp2(_logits(scores, potentials_C, epsilon))
    scaling_C = tl.full((GROUPS, LANES), 1.0, tl.float32)
    for _ in range(iterations):
        # Every row of ``fixed`` has a 1, so its sum is no less than the least scaling.
        inverse_R = real_R * _inverse(_row_sums(fixed * scaling_C[:, None, :]))
        needed_C = tl.sum(fixed * inverse_R[None, :, None], axis=1) * per_share + (1 - real_C)
        next_C = _inverse(needed_C)
        if tl.max(tl.max(tl.maximum(next_C, needed_C), axis=0), axis=0) < LARGEST_SCALING:
            scaling_C = next_C
        else:
            potentials_C += epsilon * LN_2 * tl.log2(scaling_C)
            log_masses_C = _log_masses(
                scores_ptr, potentials_C, epsilon, real_C, batch, prototypes, GROUPS, NORMALISED=True
            )
            potentials_C = _raised(
                potentials_C, log_masses_C, _total(log_masses_C), epsilon, real_C, prototypes
            )
            fixed = tl.exp2(_logits(scores, potentials_C, epsilon))
            scaling_C = tl.full((GROUPS, LANES), 1.0, tl.float32)
    return potentials_C + epsilon * LN_2 * tl.log2(scaling_C)


@triton.jit
def _write_rounded(
    scores_ptr,
    codes_ptr,
    moved_ptr,
    potentials_C,
    real_C,
    epsilon,
    batch,
    prototypes,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """The codes rounded onto both marginals, and the share of the batch that was moved."""
    share = batch.to(tl.float32) / prototypes
    masses_C = _masses(scores_ptr, potentials_C, epsilon, batch, prototypes, ROWS, GROUPS)
    kept_C = tl.where(masses_C > share, share / masses_C, 1.0)
    masses_C = tl.zeros((GROUPS, LANES), tl.float32)
    moved = 0.0
    for first in range(0, batch, ROWS):
        scores, real_R = _read(scores_ptr, first, batch, prototypes, ROWS, GROUPS)
        codes = _softmax(scores, real_R, potentials_C, epsilon) * kept_C[:, None, :]
        moved += tl.sum(tl.maximum(real_R - _row_sums(codes), 0.0))
        masses_C += tl.sum(codes, axis=1)
    short_C = real_C * tl.maximum(share - masses_C, 0.0)
    filled_C = short_C / tl.maximum(_total(short_C), 1.1754943508222875e-38)
    for first in range(0, batch, ROWS):
        scores, real_R = _read(scores_ptr, first, batch, prototypes, ROWS, GROUPS)
        codes = _softmax(scores, real_R, potentials_C, epsilon) * kept_C[:, None, :]
        codes += tl.maximum(1 - _row_sums(codes), 0.0)[None, :, None] * filled_C[:, None, :]
        _write(codes_ptr, codes, first, batch, prototypes, ROWS, GROUPS)
    tl.store(moved_ptr, moved / batch)


@triton.jit(do_not_specialize=["batch", "prototypes", "iterations"])
def _transport(
    scores_ptr,
    codes_ptr,
    moved_ptr,
    batch,
    prototypes,
    epsilon,
    iterations,
    ANNEALED: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    columns_C = tl.arange(0, GROUPS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    real_C = (columns_C < prototypes).to(tl.float32)
    potentials_C = tl.zeros((GROUPS, LANES), tl.float32)
    span, annealed = epsilon, 0
    if ANNEALED:
        span = tl.maximum(_span(scores_ptr, batch, prototypes, GROUPS), epsilon)
        annealed = iterations // 2
    else:
        # Plain iterations begin with the columns.
        log_masses_C = _log_masses(
            scores_ptr, potentials_C, epsilon, real_C, batch, prototypes, GROUPS, NORMALISED=False
        )
        potentials_C = _raised(potentials_C, log_masses_C, _total(log_masses_C), epsilon, real_C, prototypes)
        iterations -= 1

    scores, real_R = _read(scores_ptr, 0, batch, prototypes, ROWS, GROUPS)
    potentials_C = _iterated(
        scores_ptr, scores, real_R, potentials_C, real_C, span, epsilon, annealed,
        annealed if ONE_BLOCK else iterations, batch, prototypes, ONE_BLOCK, ROWS, GROUPS,
    )  # fmt: skip
    if ONE_BLOCK:
        potentials_C = _scaled(
            scores_ptr, potentials_C, real_C, epsilon,
            iterations - annealed, batch, prototypes, ROWS, GROUPS,
        )  # fmt: skip

    if ANNEALED:
        _write_rounded(
            scores_ptr,
            codes_ptr,
            moved_ptr,
            potentials_C,
            real_C,
            epsilon,
            batch,
            prototypes,
            ROWS,
            GROUPS,
        )
    else:
        for first in range(0, batch, ROWS):
            scores, real_R = _read(scores_ptr, first, batch, prototypes, ROWS, GROUPS)
            codes = _softmax(scores, real_R, potentials_C, epsilon)
            _write(codes_ptr, codes, first, batch, prototypes, ROWS, GROUPS)


def block_sizes(batch: int, prototypes: int) -> dict[str, int]:
    """What the kernel is compiled for: the padded sizes, one block if the registers hold all, and how many warps."""
    columns = max(triton.next_power_of_2(prototypes), LANES.value)
    padded = max(triton.next_power_of_2(batch), 32)
    rows = min(padded, HELD // columns, 1024)
    return {
        "ONE_BLOCK": padded == rows,
        "ROWS": rows,
        "GROUPS": columns // LANES.value,
        "num_warps": 4 if rows * columns <= HELD // 4 else 8,
        "num_stages": 1,
    }


def transport(scores_BK: Tensor, epsilon: float, iterations: int, *, annealed: bool) -> tuple[Tensor, Tensor]:
    """Codes, and the share of the batch that was rounded (0-d), of float32 scores.

    One launch on the current stream, which reads nothing back: it can be captured in a CUDA graph, once a first
    launch has compiled it. ``annealed``: of :func:`regbench.ops.equipartition`, otherwise of
    :func:`regbench.ops.sinkhorn`, which rounds nothing and leaves the share unset.

    At 256 x 50 an iteration issues 700 instructions per warp while the width falls and 320 after that, by count of
    the machine code for compute capability 9.0; with 2 warps per scheduler and some 250 cycles of waiting, 200
    iterations are 0.26 million cycles: 0.15 ms at 1.7 GHz.
    """
    batch, prototypes = scores_BK.shape
    scores_BK = scores_BK.contiguous()
    codes_BK, moved = torch.empty_like(scores_BK), scores_BK.new_empty(())
    sizes = block_sizes(batch, prototypes)
    with torch.cuda.device_of(scores_BK):
        _transport[(1,)](
            scores_BK, codes_BK, moved, batch, prototypes, epsilon, iterations, ANNEALED=annealed, **sizes
        )
    return codes_BK, moved
