"""The checks themselves. Each returns ``None`` (passed) or a fault; ``Skip`` says why a check does not apply."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.autograd import Function

from regbench.api import Regularizer
from regbench.conformance.bench import (
    BATCH,
    SHAPE,
    WARMUP,
    Bench,
    HostSyncFinder,
    Plain,
    RecordingStepper,
    differing,
    one_batch,
)
from regbench.training.discover import parameters_of
from regbench.training.stepper import AdamSettings

NAMES = {"_local_scalar_dense": ".item(), float(), int(), bool() or `if` on a tensor"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and how to mend it."""

    what: str
    mend: str


class Skip(Exception):
    """The check does not apply; the reason."""


def options_round_trip(bench: Bench) -> Fault | None:
    """options: defaults, descriptions, JSON round trip, unknown keys refused"""
    cls = bench.method.Options
    bare = [name for name, field in cls.model_fields.items() if field.is_required()]
    if bare:
        return Fault(
            f"no default for {', '.join(bare)}",
            "give each option a default, so that a suite may leave it out",
        )
    mute = [name for name, field in cls.model_fields.items() if not field.description]
    if mute:
        return Fault(f"no description for {', '.join(mute)}", "write Field(default, description='...')")
    again = cls.model_validate_json(bench.options.model_dump_json())
    if again != bench.options:
        return Fault(
            f"options changed on the way through JSON: {bench.options} became {again}", "use plain JSON types"
        )
    try:
        cls.model_validate({"no_such_option": 1})
    except ValidationError:
        return None
    return Fault(
        "an unknown option is accepted", "derive Options from regbench.Options and keep extra='forbid'"
    )


def finite_gradients(bench: Bench) -> Fault | None:
    """losses and gradients are finite on real images, at the start and after some steps"""
    stepper = RecordingStepper(bench.model(), AdamSettings(fused=False), "fp32", bench.x_BCHW)
    for _ in range(5):
        stepper.watch()
        one_batch(stepper, bench.x_BCHW)
        if stepper.unfinite:
            return Fault(
                f"not finite: {stepper.unfinite[0]}",
                "look for log(0), division by a count that may be 0, or sqrt at 0 (its gradient is infinite)",
            )
    return None


def moves_what_it_declares(bench: Bench) -> Fault | None:
    """each update moves exactly the parameters that it declares"""
    stepper = RecordingStepper(bench.model(), AdamSettings(fused=False), "fp32", bench.x_BCHW)
    before = {name: p.detach().clone() for name, p in stepper.model.named_parameters()}
    stepper.watch()
    one_batch(stepper, bench.x_BCHW)
    for update, declared, moved, pulled in stepper.moved:
        if moved - declared:
            return Fault(
                f"update {update!r} moved {', '.join(sorted(moved - declared))}, which it does not declare",
                "list it in `updates`",
            )
        if pulled - moved:
            return Fault(
                f"update {update!r} did not move {', '.join(sorted(pulled - moved))}", "check optimizers()"
            )
    every = set().union(*(moved for _, _, moved, _ in stepper.moved))
    by_hand = {
        name
        for name, p in stepper.model.named_parameters()
        if name not in every and not torch.equal(p, before[name])
    }
    if by_hand:
        return Fault(
            f"steps() itself changed the parameter {', '.join(sorted(by_hand))}",
            "keep what is moved by hand (an EMA codebook) in a buffer, not in a parameter",
        )
    return None


def deterministic_in_evaluation(bench: Bench) -> Fault | None:
    """the mean code is the same twice, and does not depend on the other images of the batch"""
    model = bench.model().eval()
    with torch.no_grad(), model.sampling(False):
        first, second = model.encode(bench.x_BCHW), model.encode(bench.x_BCHW)
        part = model.encode(bench.x_BCHW[: BATCH // 4])
    if not torch.equal(first, second):
        return Fault(
            "two encodings of the same images differ with self.sampling = False",
            "return the mean code where not sampling",
        )
    if not torch.allclose(part, first[: BATCH // 4], rtol=1e-3, atol=1e-4):
        return Fault(
            "an image's code changes with the other images of its batch",
            "use no batch statistics in forward()",
        )
    return None


def stochastic_is_declared(bench: Bench) -> Fault | None:
    """`stochastic` says whether codes are sampled"""
    model = bench.model()
    with torch.no_grad(), model.sampling(True):
        differs = not torch.equal(model.encode(bench.x_BCHW), model.encode(bench.x_BCHW))
    if differs and not model.regularizer.stochastic:
        return Fault(
            "codes are sampled, but `stochastic` is False", "define the property `stochastic` to return True"
        )
    if model.regularizer.stochastic and not differs:
        return Fault(
            "`stochastic` is True, but two samples are equal",
            "sample in forward() where self.sampling is set",
        )
    return None


def weight_zero_is_plain(bench: Bench) -> Fault | None:
    """with weight 0 a deterministic method trains the same network as the plain autoencoder, bit for bit"""
    if "weight" not in bench.method.Options.model_fields:
        raise Skip("it has no option `weight`")
    try:
        trainer = bench.trainer(weight=0.0)
    except ValidationError:
        raise Skip("its option `weight` does not take 0") from None
    if trainer.model.regularizer.stochastic:
        raise Skip("its codes are sampled")
    if trainer.stepper.steps_per_batch > 1:
        raise Skip("it makes several optimizer steps per batch")
    names = differing(bench.trained(weight=0.0), bench.trained(Plain))
    if names:
        return Fault(
            f"weight 0 trains another network than AE ({names[0]} and {len(names) - 1} more differ)",
            "let every regularizing term carry the factor `weight`, and decode the code as it is",
        )
    return None


def warmup_is_shared(bench: Bench) -> Fault | None:
    """at the end of the warm-up the shared net is the plain autoencoder's, bit for bit"""
    ours, plain = bench.trainer(), bench.trainer(Plain)
    for epoch in range(1, WARMUP + 1):
        ours.run_epoch(epoch)
        plain.run_epoch(epoch)
    names = differing(ours, plain)
    if names:
        return Fault(
            f"after the warm-up {names[0]} and {len(names) - 1} more differ from AE's",
            "warmup_code() should return the code as it is",
        )
    return None


def same_seed_same_numbers(bench: Bench) -> Fault | None:
    """the same seed gives the same weights"""
    left, right = bench.trained(), bench.trained()
    names = [
        name
        for name, value in left.model.state_dict().items()
        if not torch.equal(value, right.model.state_dict()[name])
    ]
    if names:
        return Fault(
            f"two trainings with the same seed differ in {names[0]}",
            "draw random numbers with torch only, and keep no state outside the instance",
        )
    return None


def checkpoint_round_trip(bench: Bench) -> Fault | None:
    """a training that is saved, loaded and continued ends where an uninterrupted one does"""
    half = bench.trainer()
    for epoch in range(1, WARMUP + 2):
        half.run_epoch(epoch)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = bench.trainer()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for epoch in range(WARMUP + 2, resumed.settings.epochs + 1):
        resumed.run_epoch(epoch)
    resumed.finish()
    whole = bench.trained().model.state_dict()
    names = [
        name for name, value in resumed.model.state_dict().items() if not torch.equal(value, whole[name])
    ]
    if names:
        return Fault(
            f"after saving and loading, training went on differently ({names[0]})",
            "keep all state in parameters and buffers (register_buffer)",
        )
    return None


def no_host_sync(bench: Bench) -> Fault | None:
    """a step never makes the host wait for the device"""
    trainer = bench.trained()
    finder = HostSyncFinder()
    model = trainer.model
    with finder:
        for _ in model.regularizer.steps(model, bench.x_BCHW):
            pass
    if finder.found:
        what = NAMES.get(finder.found[0], finder.found[0])
        return Fault(
            f"steps() waits for the device: {what}", "use masks and torch.where instead of Python branches"
        )
    if bench.device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            one_batch(trainer.stepper, bench.x_BCHW)
        except RuntimeError as error:
            return Fault(
                f"a step waits for the GPU: {error}", "use masks and torch.where instead of Python branches"
            )
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return None


def works_in_bfloat16(bench: Bench) -> Fault | None:
    """trains in bf16 with fused Adam, to finite losses near those of float32"""
    low = bench.trained(precision="bf16", fused=True).model
    high = bench.trained().model
    with torch.no_grad():
        losses = []
        for model in (low, high):
            with model.sampling(False):
                losses.append(float(model.reconstruction_loss(model.encode(bench.x_BCHW), bench.x_BCHW)))
    if not abs(losses[0] - losses[1]) < 0.1 * losses[1]:
        return Fault(
            f"reconstruction loss {losses[0]:.4g} in bf16, {losses[1]:.4g} in float32",
            "compute distances, exponentials and sums in float32, inside `torch.autocast(..., enabled=False)`",
        )
    return None


def training_end_repeats(bench: Bench) -> Fault | None:
    """on_training_end begins anew each time: called twice, it leaves the same weights and buffers"""
    if bench.method.on_training_end is Regularizer.on_training_end:
        raise Skip("the method has no on_training_end")
    trainer = bench.trained()
    once = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.finish()
    twice = trainer.model.state_dict()
    changed = [name for name, value in once.items() if not torch.equal(value, twice[name])]
    if changed:
        return Fault(
            f"a second call changed {', '.join(changed)}",
            "initialise what it fits at its beginning: it is called again where a run is resumed",
        )
    return None


def sampling_from_the_prior(bench: Bench) -> Fault | None:
    """sample(n) gives n finite codes, and `prior` or `ex_post` names what they are drawn from"""
    method = bench.trained().model.regularizer
    named = method.prior or method.ex_post
    if method.prior and method.ex_post:
        return Fault(
            f"prior is {method.prior!r} and ex_post is {method.ex_post!r}; sample() draws from one of them",
            "keep `prior` if the training draws codes to it, `ex_post` if it is fitted to them afterwards",
        )
    with torch.no_grad():
        z_ND = method.sample(5)
    if z_ND is None:
        attribute = "prior" if method.prior else "ex_post"
        return (
            Fault(f"{attribute} is {named!r}, but sample() gives nothing", "define sample()")
            if named
            else None
        )
    if tuple(z_ND.shape) != (5, SHAPE.latent) or not bool(z_ND.isfinite().all()):
        return Fault(
            f"sample(5) has shape {tuple(z_ND.shape)}; expected finite codes of shape (5, {SHAPE.latent})", ""
        )
    if not named:
        return Fault(
            "sample() draws codes, but neither `prior` nor `ex_post` says from what",
            "set `prior = 'N(0, I)'` or the like, or `ex_post` where a density is fitted after the training",
        )
    return None


def clusters_have_shapes(bench: Bench) -> Fault | None:
    """prototypes() and assign() fit together"""
    model = bench.trained().model
    method = model.regularizer
    with torch.no_grad(), model.sampling(False):
        v_KD = method.prototypes()
        clusters_B = method.assign(model.encode(bench.x_BCHW))
    if v_KD is None and clusters_B is None:
        raise Skip("it has no prototypes and no clusters")
    if v_KD is not None and (v_KD.ndim != 2 or v_KD.shape[1] != SHAPE.latent):
        return Fault(f"prototypes() has shape {tuple(v_KD.shape)}; expected (K, {SHAPE.latent})", "")
    if clusters_B is not None and (tuple(clusters_B.shape) != (BATCH,) or clusters_B.is_floating_point()):
        return Fault(
            f"assign() gave {clusters_B.dtype} of shape {tuple(clusters_B.shape)}; expected integers (B,)", ""
        )
    return None


class _TakenTwice(RuntimeError):
    """A gradient was asked for that has a gradient of its own."""


class _Once(Function):
    """The identity; its gradient has no gradient of its own, as in compiled code."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # as it is where a graph of the gradient is made
            raise _TakenTwice
        return gradient


def no_gradients_of_gradients(bench: Bench) -> Fault | None:
    """a method that takes gradients of gradients through the shared net says so by `compilable = False`"""
    if not bench.method.compilable:
        raise Skip("`compilable` is False")
    model = bench.model()
    model.index_B = torch.arange(BATCH, device=bench.device)
    features = model.features

    def once(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        code_BD, h_BF = features(x_BCHW)
        return _Once.apply(code_BD), _Once.apply(h_BF)

    model.features = once  # type: ignore[method-assign]
    try:
        for update in model.regularizer.steps(model, bench.x_BCHW):
            torch.autograd.grad(update.loss, parameters_of(update.updates))
    except _TakenTwice:
        return Fault(
            "its loss has gradients of gradients, which compiled code does not give: where a training is compiled, it "
            "would fail",
            "set `compilable = False` in the class",
        )
    return None


CHECKS: tuple[Callable[[Bench], Fault | None], ...] = (
    options_round_trip,
    finite_gradients,
    moves_what_it_declares,
    deterministic_in_evaluation,
    stochastic_is_declared,
    warmup_is_shared,
    weight_zero_is_plain,
    same_seed_same_numbers,
    checkpoint_round_trip,
    training_end_repeats,
    no_host_sync,
    no_gradients_of_gradients,
    works_in_bfloat16,
    sampling_from_the_prior,
    clusters_have_shapes,
)
