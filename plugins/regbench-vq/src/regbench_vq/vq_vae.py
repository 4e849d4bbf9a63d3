"""VQ-VAE (van den Oord et al. 2017) in the shared bottleneck: the code as a short row of tokens from one codebook.

The paper quantizes a map of codes; here the D units of one code are T tokens of E units each. Its PixelCNN over
the map is here a recurrent net over the row.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features, T tokens of a code, E units of a
token, J tokens of many codes, K codebook entries, N images or samples, U units of the prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import regbench
from regbench import Dims, Field, Model, Regularizer, Search, Update, ops

TOKEN = 16
"""Units of a token where the latent size allows: 16 tokens at 256 units."""
SMOOTHING = 1e-5
"""Added to each entry's moving count; epsilon of sonnet's VectorQuantizerEMA."""


class VQVAE(Regularizer):
    """Each token becomes its nearest codebook entry, straight through; + weight x |token - entry|^2."""

    name = "vq-vae"
    paper = "arXiv:1711.00937"
    regularizes = "each code, to a row of entries of a learned codebook"
    ex_post = "autoregressive net over the indices"
    search: ClassVar = {"commitment": Search(low=0.01, high=2.0)}

    codebook_KE: Tensor
    counts_K: Tensor
    sums_KE: Tensor
    seeded: Tensor

    class Options(regbench.Options):
        """Options of ``vq-vae``."""

        commitment: float = Field(
            0.25,
            ge=0,
            description="factor of the squared distance of code and codebook entries, summed over the latent units; "
            "0.25 in the paper and in sonnet, beside losses of another scale: see the README",
        )
        codes: int = Field(512, ge=2, description="codebook entries K; 512 in the paper and in sonnet")
        token_units: int | None = Field(
            None,
            ge=1,
            description="units of a token, a divisor of the latent size; None: 16, or the greatest common divisor of "
            "16 and the latent size",
        )
        decay: float = Field(
            0.99, ge=0, lt=1, description="of the codebook's moving averages, per batch; 0.99 in sonnet"
        )
        reseed_below: float = Field(
            0.0,
            ge=0,
            description="an entry that is used less often than this per batch, as a moving average, starts again at a "
            "token of the batch; 0: never, as in sonnet; 1 in Jukebox (arXiv:2005.00341)",
        )
        prior_units: int = Field(64, ge=1, description="state size of the net that learns the indices")
        prior_epochs: int = Field(
            6, ge=0, description="passes over the training images' indices it learns from"
        )
        prior_batch: int = Field(64, ge=1, description="images per step of its training")
        prior_lr: float = Field(5e-3, gt=0, description="learning rate of its Adam")

    @classmethod
    def misfits(cls, options: Options, dims: Dims) -> Mapping[str, str]:
        if options.token_units is None or dims.latent % options.token_units == 0:
            return {}
        divisors = [str(units) for units in range(1, dims.latent + 1) if dims.latent % units == 0]
        return {"token_units": f"expected a divisor of latent = {dims.latent}: {', '.join(divisors)}"}

    def build(self, dims: Dims) -> None:
        options = self.options
        self.units = options.token_units or math.gcd(TOKEN, dims.latent)
        self.tokens = dims.latent // self.units
        self.register_buffer("codebook_KE", torch.randn(options.codes, self.units))
        self.register_buffer("counts_K", torch.ones(options.codes))
        self.register_buffer("sums_KE", self.codebook_KE.clone())
        self.register_buffer("seeded", torch.tensor(False))
        self.indices_prior = IndexPrior(options.codes, options.prior_units)

    @property
    def weight(self) -> float:
        return float(self.options.commitment)

    def split(self, code_BD: Tensor) -> Tensor:
        """The tokens of all codes, one code after the other: token_JE in float32, without gradient."""
        return code_BD.detach().float().reshape(-1, self.units)

    def nearest(self, token_JE: Tensor) -> Tensor:
        """Index of each token's nearest codebook entry, k_J."""
        return ops.squared_distances(token_JE, self.codebook_KE).argmin(dim=1)

    def quantize(self, code_BD: Tensor, k_J: Tensor) -> tuple[Tensor, Tensor]:
        """The entries as codes z_BD, whose gradient goes straight to the code; the weighted commitment loss (0-d)."""
        code_BD = code_BD.float()
        entries_BD = self.codebook_KE[k_J].view_as(code_BD)
        z_BD = torch.where(self.seeded, entries_BD, code_BD.detach())  # not quantized during the warm-up
        commitment = self.options.commitment * (code_BD - z_BD).square().sum(dim=1).mean()
        return z_BD + (code_BD - code_BD.detach()), commitment

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_BD, commitment = self.quantize(code_BD, self.nearest(self.split(code_BD)))
        return z_BD, {"commitment": commitment}

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        code_BD, _ = model.features(x_BCHW)
        token_JE = self.split(code_BD)
        k_J = self.nearest(token_JE)
        # A comparison, not F.one_hot: that looks at the indices, which would wait for the device.
        chosen_JK = (k_J[:, None] == torch.arange(self.options.codes, device=k_J.device)).float()
        z_BD, commitment = self.quantize(code_BD, k_J)
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            bce + commitment,
            updates=[*model.encoding, model.decoder],
            log={"bce": bce, "commitment": commitment, "perplexity": perplexity(chosen_JK)},
        )
        with torch.no_grad():
            self.move_codebook(token_JE, chosen_JK)

    def move_codebook(self, token_JE: Tensor, chosen_JK: Tensor) -> None:
        """Each entry becomes the moving average of its tokens (the paper's appendix A.1, smoothed as in sonnet)."""
        options = self.options
        self.counts_K.lerp_(chosen_JK.sum(dim=0), 1 - options.decay)
        self.sums_KE.lerp_(ops.matmul(chosen_JK.T, token_JE), 1 - options.decay)
        if options.reseed_below > 0:
            fresh_KE = token_JE[torch.randint(len(token_JE), (options.codes,), device=token_JE.device)]
            dead_K = self.counts_K < options.reseed_below
            self.counts_K.copy_(torch.where(dead_K, options.reseed_below, self.counts_K))
            self.sums_KE.copy_(torch.where(dead_K[:, None], options.reseed_below * fresh_KE, self.sums_KE))
        total = self.counts_K.sum()
        smoothed_K = (self.counts_K + SMOOTHING) / (total + options.codes * SMOOTHING) * total
        self.codebook_KE.copy_(self.sums_KE / smoothed_K[:, None])

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        """The codebook starts at tokens of the training images, drawn at random."""
        token_JE = torch.cat([self.split(model.features(x_BCHW)[0]) for x_BCHW in batches])
        chosen_KE = token_JE[torch.randint(len(token_JE), (self.options.codes,), device=token_JE.device)]
        # The same token drawn twice must not be the same entry twice.
        noise_KE = 1e-3 * token_JE.std(correction=0) * torch.randn_like(chosen_KE)
        self.codebook_KE.copy_(chosen_KE + noise_KE)
        self.counts_K.fill_(1.0)
        self.sums_KE.copy_(self.codebook_KE)
        self.seeded.fill_(True)

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        k_J = torch.cat([self.nearest(self.split(model.features(x_BCHW)[0])) for x_BCHW in batches])
        options = self.options
        self.indices_prior.fit(
            k_J.view(-1, self.tokens), options.prior_epochs, options.prior_batch, options.prior_lr
        )

    def sample(self, n: int) -> Tensor:
        k_NT: Tensor = self.indices_prior.sample(n, self.tokens)
        return self.codebook_KE[k_NT].flatten(1)


def perplexity(chosen_JK: Tensor) -> Tensor:
    """How many codebook entries a batch uses: exp(entropy) of their shares, from 1 to K (0-d)."""
    share_K = chosen_JK.mean(dim=0)
    return torch.exp(-torch.xlogy(share_K, share_K).sum())


class IndexPrior(nn.Module):
    """p(k_1) p(k_2 | k_1) ...: a gated recurrent net that predicts each index from those before it."""

    def __init__(self, codes: int, units: int) -> None:
        super().__init__()
        self.start = codes  # stands before the first index
        self.embedding = nn.Embedding(codes + 1, units)
        self.recurrent = nn.GRU(units, units, batch_first=True)
        self.head = nn.Linear(units, codes)

    def logits(self, before_BT: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits_BTK of what follows each of the indices, and the state that remembers them all."""
        output_BTU, state = self.recurrent(self.embedding(before_BT), state)
        return self.head(output_BTU), state

    def nats(self, k_BT: Tensor) -> Tensor:
        """-log p of rows of indices, mean over all indices (0-d)."""
        logits_BTK, _ = self.logits(F.pad(k_BT[:, :-1], (1, 0), value=self.start))
        return F.cross_entropy(logits_BTK.flatten(0, 1), k_BT.flatten())

    @torch.enable_grad()
    def fit(self, k_NT: Tensor, epochs: int, batch: int, lr: float) -> None:
        """Learn from the rows of all training images, from weights drawn anew."""
        self.train()  # in evaluation mode cuDNN's recurrent nets have no gradients
        for part in (self.embedding, self.recurrent, self.head):
            part.reset_parameters()
        adam = torch.optim.Adam(self.parameters(), lr=lr)
        for _ in range(epochs):
            for rows_B in torch.split(torch.randperm(len(k_NT)).to(k_NT.device), batch):
                torch.autograd.backward(self.nats(k_NT[rows_B]))
                adam.step()
                adam.zero_grad()

    @torch.no_grad()
    def sample(self, n: int, tokens: int) -> Tensor:
        """Draw rows of indices k_NT, one index after the other."""
        k_N1 = torch.full((n, 1), self.start, device=self.head.weight.device)
        columns, state = [], None
        for _ in range(tokens):
            logits_N1K, state = self.logits(k_N1, state)
            k_N1 = torch.multinomial(logits_N1K[:, 0].softmax(dim=1), 1)
            columns.append(k_N1)
        return torch.cat(columns, dim=1)
