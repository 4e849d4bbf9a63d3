"""The plugin boundary: all that the author of a latent regularizer needs.

Shape suffixes, here and in every method file:
    B batch, C channels, H height, W width, D latent units, F encoder features, K prototypes.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from regbench.errors import PluginError

if TYPE_CHECKING:
    from regbench.model import Model

__all__ = ["AdamOptions", "Dims", "Field", "Options", "Regularizer", "Search", "Update"]


class Options(BaseModel):
    """Base of a method's options. Declare fields with types and ``Field(default, ge=..., description=...)``.

    Every field needs a default and a description. A suite sets them by name; an unknown key is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class AdamOptions(BaseModel):
    """How one of a method's optimizers differs from the suite's Adam. ``None``: as the suite says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lr: float | None = Field(None, gt=0, description="learning rate")
    betas: tuple[float, float] | None = Field(None, description="decay rates of the two moment estimates")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty added to the gradient")


class Search(BaseModel):
    """What tuning may try for one option: a range of numbers, or a list of choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    low: float | None = None
    """Smallest value of a range."""
    high: float | None = None
    """Largest value of a range."""
    log: bool = True
    """Whether a range is searched on a logarithmic scale."""
    choices: tuple[bool | int | float | str, ...] | None = Field(None, min_length=1)
    """The values, where there is no range."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("expected either low and high, or choices")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected low < high, like { low = 0.01, high = 10 }, or choices = [...]")
        elif self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low > 0; set log = false")
        return self


@dataclass(frozen=True, slots=True)
class Dims:
    """Sizes that a method may need to build its own layers."""

    latent: int
    """D, units of the code z."""
    features: int
    """F, units of the encoder's feature vector h."""
    channels: int
    side: int
    """Height and width of an image in pixels."""
    images: int = 0
    """Training images; for methods that keep something for each of them. 0 in a model that is not to be trained."""

    @property
    def pixels(self) -> int:
        """Number of values in one image: channels x height x width."""
        return self.channels * self.side * self.side


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step, yielded by :meth:`Regularizer.steps`.

    The harness takes gradients of ``loss`` with respect to ``updates`` and nothing else, steps the Adam
    called ``optimizer``, and advances the generator. Afterwards every tensor that depends on a parameter is
    out of date: encode again.
    """

    name: str
    """Fixed name; each update of a method has its own."""
    loss: Tensor
    """0-d tensor."""
    updates: Sequence[nn.Module | nn.Parameter]
    """What this step moves: modules, parameters, or both (``[*model.encoding, self]``)."""
    optimizer: str = ""
    """Which Adam steps; empty: one of this update's own, called ``name``."""
    log: Mapping[str, Tensor] = field(default_factory=dict)
    """0-d tensors recorded as their mean over the epoch."""
    log_max: Mapping[str, Tensor] = field(default_factory=dict)
    """0-d tensors recorded as their maximum over the epoch."""


class Regularizer(nn.Module, ABC):
    """A latent regularizer: subclass it, set ``name``, and write ``forward`` or ``steps``.

    An instance lives for one cell (one method, data set and seed). The shared encoder, code layer and
    decoder belong to the harness and reach a method as ``model``.
    """

    name: ClassVar[str]
    """How suites name the method: lower case, digits and hyphens."""
    paper: ClassVar[str] = ""
    """Where the method comes from, e.g. ``arXiv:1312.6114``."""
    regularizes: ClassVar[str] = ""
    """What the regularization acts on, in a few words, for tables that set methods side by side."""
    prior: ClassVar[str] = ""
    """The distribution that the training draws codes to and :meth:`sample` draws from, in words; empty where there is
    none, or where it has parts that are only fitted afterwards: see ``ex_post``."""
    ex_post: ClassVar[str] = ""
    """What :meth:`sample` draws from where that is no prior but fitted to the trained codes, in words. How near codes
    are to something fitted to them says nothing of their regularity, so no distance to it is reported."""
    compilable: ClassVar[bool] = True
    """Whether the shared net and :mod:`regbench.ops` may be compiled for this method; false where it takes
    gradients of gradients, which compiled code does not have."""
    search: ClassVar[Mapping[str, Search]] = {}
    """Which options a suite's ``[tuning]`` searches, and where: as a rule how hard the method regularizes."""
    Options: ClassVar[type[Options]] = Options

    _place: Tensor
    options: Any
    """The instance of ``Options`` that the suite resolved to."""
    dims: Dims
    sampling: bool
    """Whether a stochastic method samples its code. Set by the harness: true in training, and in evaluation
    once for each; never derive it from ``self.training``."""

    def __init__(self, options: BaseModel, dims: Dims) -> None:
        super().__init__()
        for option, expected in self.misfits(options, dims).items():
            raise PluginError(f"{self.name}: {option} = {getattr(options, option)!r}: {expected}")
        self.options = options
        self.dims = dims
        self.sampling = True
        # Holds no state, but moves with the module.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.build(dims)

    @classmethod
    def misfits(cls, options: Any, dims: Dims) -> Mapping[str, str]:
        """Options that do not go with the sizes of net and data: what was expected instead, by the option's name.

        Asked when a suite is planned, before anything is trained. What depends on the options alone is better refused
        by ``Options`` itself.
        """
        return {}

    def build(self, dims: Dims) -> None:
        """Create the method's own layers, parameters and buffers. Random numbers here are the method's own."""

    @property
    def device(self) -> torch.device:
        """Where the method's tensors are, also where it has none of its own."""
        return self._place.device

    def standard_normal(self, n: int) -> Tensor:
        """``n`` draws z_ND of N(0, I), on the method's device: what :meth:`sample` returns for that prior."""
        return torch.randn(n, self.dims.latent, device=self.device)

    @property
    def stochastic(self) -> bool:
        """Whether ``forward`` draws a random code when ``self.sampling`` is set."""
        return False

    @property
    def weight(self) -> float | None:
        """Factor of the regularization term in the loss, for the record of effective weights."""
        weight = getattr(self.options, "weight", None)
        return None if weight is None else float(weight)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Turn the shared net's linear code and features into z_BD, and name the weighted loss terms (0-d).

        The default is the plain autoencoder: the code as it is, and no terms.
        """
        return code_BD, {}

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        """One batch as a generator of optimizer steps. The default: one step on BCE plus ``forward``'s terms.

        The generator is run to its end, so code after the last ``yield`` runs once per batch. Nothing in it
        may wait for the device (``.item()``, ``if tensor``, boolean indexing) or change a Python attribute.
        """
        z_BD, terms = model.encode_with_terms(x_BCHW)
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            sum(terms.values(), start=bce),
            updates=[*model.encoding, self, model.decoder],
            log={"bce": bce, **terms},
        )

    def warnings(self, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """What readers of the results must know, from the finished training; one sentence each, without a full stop.

        ``history`` has one row per epoch with ``epoch``, ``phase``, ``losses``, ``log`` and ``log_max``.
        """
        return []

    def optimizers(self) -> Mapping[str, AdamOptions]:
        """Settings of the Adams named by the updates, where they differ from the suite's."""
        return {}

    def warmup_code(self, code_BD: Tensor, h_BF: Tensor) -> Tensor:
        """The z_BD that is decoded during the warm-up; for every method the code as it is, unless said here."""
        return code_BD

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        """Called once, without gradients, when the warm-up ends: the place for data-dependent set-up.

        ``batches`` yields training images x_BCHW in [0, 1], one pass, in a fixed order.
        """

    def on_epoch_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        """Called before each regularized epoch, without gradients: the place for passes over all training images.

        Such as assigning all of them anew. ``batches`` as above: image i of that order is the one that
        ``model.index_B`` calls i in :meth:`steps`.
        """

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        """Called after the last epoch, without gradients, before anything is measured: the place to fit a density to
        the codes, or to train a prior (inside ``torch.enable_grad()``), for :meth:`sample` to draw from.

        It may be called again where a run is resumed, so it begins anew each time: what it fits may depend on the
        trained weights and on torch's random stream, which is the same each time, but on no earlier call.
        """

    def sample(self, n: int) -> Tensor | None:
        """Draw ``n`` codes z_ND from the method's prior, or from what ``ex_post`` names, on its own device.

        ``None``: it has neither.
        """
        return None

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor | None:
        """Draw one code of the prior of each cluster in ``k_N``: z_ND, the spread multiplied by ``scale``.

        Scale 0 gives the centres. ``None``: the method's clusters have no prior of their own.
        """
        return None

    def prototypes(self) -> Tensor | None:
        """The prototypes v_KD, for methods that have them."""
        return None

    def assign(self, z_BD: Tensor) -> Tensor | None:
        """The cluster of each code at evaluation, as integers of shape B, for methods that have clusters."""
        return None
