"""The bundled methods, and the options that change their steps, pass the kit that plugins are held to."""

from __future__ import annotations

from typing import Any

import pytest

from regbench import Regularizer
from regbench.regularizers import AE, VAEKL, InfoVAEMMD, ProtoVAE
from regbench.testing import assert_conforms


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (AE, {"updates_per_batch": 3}),
        (VAEKL, {}),
        (InfoVAEMMD, {"bandwidth": "median"}),
        (InfoVAEMMD, {"encoder": "deterministic", "closed_form": True}),
        (ProtoVAE, {}),
        (ProtoVAE, {"scores": "cosine", "seeding": "kmeans", "shared_adam": True}),
    ],
)
def test_bundled_methods_conform(method: type[Regularizer], options: dict[str, Any]) -> None:
    assert_conforms(method, **options)
