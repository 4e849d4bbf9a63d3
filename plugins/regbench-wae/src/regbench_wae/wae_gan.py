"""WAE-GAN (Tolstikhin et al., ICLR 2018), Algorithm 1: an adversary tells codes from draws of N(0, I).

The order of the two steps and all constants are those of the authors' code, github.com/tolstikhin/wae.

Shape suffixes: B batch, C channels, H height, W width, N samples, D latent units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

import regbench
from regbench import AdamOptions, Field, Model, Search, Update

WON = 0.95
"""How often the adversary is right where readers are warned: codes that match the prior leave it at 0.5."""


class WAEGAN(regbench.Regularizer):
    """Deterministic codes that fool an adversary, which tells them from N(0, I) and learns in a step of its own."""

    name = "wae-gan"
    paper = "arXiv:1711.01558"
    regularizes = "the codes of a batch as a whole, by an adversary"
    prior = "N(0, I)"
    search: ClassVar = {"weight": Search(low=1e-2, high=1e3)}

    class Options(regbench.Options):
        weight: float = Field(
            1.0,
            ge=0,
            description="factor of fooling the adversary (lambda); 1: both terms are nats. 400 is at most as strong as "
            "the paper's 10 for MNIST: see wae-mmd",
        )
        adversary_layers: int = Field(4, ge=1, description="hidden layers of the adversary, with ReLU")
        adversary_width: int = Field(512, ge=1, description="units of each of them")
        adversary_lr: float = Field(5e-4, gt=0, description="learning rate of the adversary's own Adam")
        beta1: float = Field(
            0.5,
            ge=0,
            lt=1,
            description="decay rate of the mean gradient in both Adams, the autoencoder's and its own",
        )

    def build(self, dims: regbench.Dims) -> None:
        widths = [dims.latent, *[self.options.adversary_width] * self.options.adversary_layers]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.adversary = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        for name, parameter in self.adversary.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=0.01)  # configs.py: init_std, init_bias
            else:
                nn.init.zeros_(parameter)

    def logits(self, z_BD: Tensor) -> Tensor:
        """log-odds_B that a code was drawn from N(0, I), as the adversary sees it; in float32."""
        logits_B: Tensor = self.adversary(z_BD).float().squeeze(dim=1)
        return logits_B

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        # Not saturating: -log D(z) in place of log(1 - D(z)).
        fooling = self.options.weight * F.softplus(-self.logits(z_BD)).mean()
        yield Update(
            "autoencoder",
            bce + fooling,
            updates=[*model.encoding, model.decoder],
            log={"bce": bce, "fooling": fooling},
        )
        # wae.py multiplies this loss by lambda, too, which its Adam undoes.
        coded_B = self.logits(model.encode(x_BCHW).detach())
        drawn_B = self.logits(self.sample(len(x_BCHW)))
        told = 0.5 * ((coded_B < 0).float().mean() + (drawn_B > 0).float().mean())
        yield Update(
            "adversary",
            F.softplus(-drawn_B).mean() + F.softplus(coded_B).mean(),
            updates=[self.adversary],
            log={"adversary_accuracy": told},
        )

    def optimizers(self) -> Mapping[str, AdamOptions]:
        betas = (self.options.beta1, 0.999)
        return {
            "autoencoder": AdamOptions(betas=betas),
            "adversary": AdamOptions(lr=self.options.adversary_lr, betas=betas),
        }

    def warnings(self, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """Says so where the adversary had won when the training ended."""
        told = [row["log"]["adversary_accuracy"] for row in history if "adversary_accuracy" in row["log"]]
        if told and told[-1] > WON:
            return [
                f"the adversary told codes from draws of N(0, I) in {told[-1]:.0%} of cases in the last epoch"
            ]
        return []

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)
