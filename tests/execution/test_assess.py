"""All that a cell measures at its end: complete, the same each time, and honest where something is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from regbench.api import Regularizer
from regbench.assess import Assessment, CellData, assess, curve_point
from regbench.evaluation.classifier import train_classifier
from regbench.evaluation.metrics import MSE
from regbench.evaluation.regularity import normal_distances, spectrum
from regbench.model import Model, build_model
from regbench.nets import NetShape
from regbench.regularizers.ae import AE
from regbench.regularizers.infovae_mmd import InfoVAEMMD
from regbench.regularizers.proto_vae import ProtoVAE
from regbench.regularizers.vae_kl import VAEKL
from regbench.report.frame import _numbers
from regbench.report.quantities import DIAGNOSTICS
from tests.evaluation.test_classifier import bright_or_dark

CPU = torch.device("cpu")
SCORES = ("precision", "recall", "density", "coverage", "frechet", "frechet_reconstructions")


@pytest.fixture(scope="module")
def data() -> CellData:
    split = bright_or_dark(n=160)
    return CellData.on(CPU, split, 50).judged_by(train_classifier(split, CPU))


def model_of(regularizer: type[Regularizer], **options: Any) -> Model:
    shape = NetShape(channels=1, side=16, latent=5, features=12, widths=(4, 8))
    return build_model(shape, regularizer, options, seed=3)


def text(assessment: Assessment) -> str:
    """All that goes into result.json; the arrays as lists."""
    arrays = {name: values.tolist() for name, values in assessment.arrays.items()}
    return json.dumps([assessment.metrics, assessment.diagnostics, arrays], allow_nan=False)


@pytest.mark.parametrize("regularizer", [AE, VAEKL, InfoVAEMMD, ProtoVAE])
def test_an_assessment_is_the_same_each_time_and_complete(
    regularizer: type[Regularizer], data: CellData
) -> None:
    model = model_of(regularizer)
    first = assess(model, data, [MSE()], 0)
    torch.rand(7)
    assert text(assess(model, data, [MSE()], 0)) == text(first)
    found = first.diagnostics
    assert (found["prior"] is None) == (regularizer is AE)
    assert found["normal"].keys() == {"mmd", "sw2", "kl", "mmd_floor", "sw2_floor", "kl_floor"}
    assert found["probe"].keys() == {"knn", "linear"}
    assert set(found["samples"]) == set(SCORES)
    assert None not in found["samples"].values()
    assert (found["cluster_prior"] is None) == (regularizer is not ProtoVAE)
    assert ("synthesis" in first.arrays) == (regularizer is ProtoVAE)
    assert first.arrays["interpolations"].shape == (6, 8, 1, 16, 16)
    assert first.arrays["samples"].shape == (64, 1, 16, 16)
    assert first.arrays["spectrum"].shape == (5,)


@pytest.mark.parametrize(("regularizer", "decoded"), [(AE, 1), (VAEKL, 2)])
def test_test_images_pass_the_nets_no_more_often_than_they_must(
    regularizer: type[Regularizer], decoded: int, data: CellData
) -> None:
    model = model_of(regularizer)
    seen = {"encoder": 0, "decoder": 0}
    for name in seen:

        def count(module: object, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name] += len(inputs[0])

        getattr(model.net, name).register_forward_pre_hook(count)
    assess(model, data, [MSE()], 0)
    test, train, fitted = len(data.split.test), len(data.split.train), regularizer is AE
    # The probe's training images; and all of them where a Gaussian must be fitted to their codes.
    assert seen["encoder"] == test + train + (train if fitted else 0)
    # The samples, and 6 paths of 8 images.
    assert seen["decoder"] == decoded * test + max(64, test) + 48
    seen["encoder"] = seen["decoder"] = 0
    curve_point(model, data)
    assert seen["encoder"] == seen["decoder"] == test + len(data.curve)


def test_every_number_has_a_label_and_a_definition(data: CellData) -> None:
    found = assess(model_of(ProtoVAE, prototypes=3), data, [MSE()], 0).diagnostics
    names = {name for name, _ in _numbers(found)}
    assert len(names) > 35
    assert names <= DIAGNOSTICS.keys()
    assert all(label and text for label, text in DIAGNOSTICS.values())


def test_regularity_is_measured_on_sampled_codes_where_a_method_samples(data: CellData) -> None:
    class Exact(Regularizer):
        """Codes that are all 0 at the mean, and N(0, I) when sampled."""

        name, prior = "exact", "N(0, I)"

        @property
        def stochastic(self) -> bool:
            return True

        def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return (torch.randn_like(code_BD) if self.sampling else 0 * code_BD), {}

        def sample(self, n: int) -> Tensor:
            return torch.randn(n, self.dims.latent)

    found = assess(model_of(Exact), data, [MSE()], 0)
    assert found.diagnostics["active_units"] == 0
    assert found.diagnostics["prior"]["sw2"] < 2 * found.diagnostics["prior"]["sw2_floor"]
    assert 0.5 < found.diagnostics["spectrum"]["median"] < 2
    np.testing.assert_allclose(found.arrays["latents"], 0, atol=1e-6)


def test_the_columns_expose_a_regularizer_that_does_nothing(data: CellData) -> None:
    """With weight 0 InfoVAE is the autoencoder: its prior is as far from its codes as N(0, I) is from the AE's."""
    ae = assess(model_of(AE), data, [MSE()], 0)
    idle = assess(model_of(InfoVAEMMD, weight=0.0, encoder="deterministic"), data, [MSE()], 0)
    assert idle.diagnostics["normal"] == ae.diagnostics["normal"]
    assert idle.diagnostics["spectrum"] == ae.diagnostics["spectrum"]
    own = idle.diagnostics["prior"]
    assert own["sw2"] == pytest.approx(ae.diagnostics["normal"]["sw2"], rel=0.1)
    assert own["sw2"] > 3 * own["sw2_floor"]
    assert own["kl"] > 3 * own["kl_floor"]


def test_numbers_are_of_the_test_images_codes(data: CellData) -> None:
    found = assess(model_of(AE), data, [MSE()], 0)
    z_ND = torch.from_numpy(found.arrays["latents"])  # all, as there are fewer than 2,000
    assert found.diagnostics["normal"] == normal_distances(z_ND, seed=0)
    np.testing.assert_array_equal(found.arrays["spectrum"], spectrum(z_ND))


def test_without_classes_there_is_nothing_to_read_or_judge(data: CellData) -> None:
    split = replace(data.split, classes=())
    unlabelled = CellData.on(CPU, split, 50).judged_by(None)
    found = assess(model_of(ProtoVAE), unlabelled, [MSE()], 0)
    assert found.diagnostics["probe"] is None
    assert found.diagnostics["samples"] is None
    assert "sample_agreement" not in found.diagnostics["clusters"]
    assert "synthesis" not in found.arrays
    assert found.diagnostics["cluster_prior"] is not None
    assert "interpolations" in found.arrays


def test_a_glimpse_is_assessed_with_the_same_classifier(data: CellData) -> None:
    glimpse = data.glimpse()
    assert glimpse.classifier is data.classifier
    found = assess(model_of(ProtoVAE), glimpse, [MSE()], 0).diagnostics
    assert None not in found["samples"].values()
    assert 0 <= found["clusters"]["sample_agreement"] <= 1


def test_a_single_test_image_is_assessed(data: CellData) -> None:
    split = replace(data.split, test=data.split.test[:1], test_labels=data.split.test_labels[:1])
    single = CellData.on(CPU, split, 50).judged_by(data.classifier)
    found = assess(model_of(ProtoVAE), single, [MSE()], 0)
    assert found.diagnostics["samples"] is None
    assert set(found.diagnostics["normal"].values()) == {None}
    assert "interpolations" not in found.arrays
