"""The bundled regularizers: one file is one method, written against the public names alone."""

from __future__ import annotations

from regbench import Regularizer, hookimpl
from regbench.regularizers.ae import AE
from regbench.regularizers.infovae_mmd import InfoVAEMMD
from regbench.regularizers.proto_vae import ProtoVAE
from regbench.regularizers.vae_kl import VAEKL

__all__ = ["AE", "VAEKL", "InfoVAEMMD", "ProtoVAE"]


@hookimpl
def regbench_regularizers() -> list[type[Regularizer]]:
    return [AE, VAEKL, InfoVAEMMD, ProtoVAE]
