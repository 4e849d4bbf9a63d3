"""Evaluation: right numbers, and no trace left in the training around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regbench.conformance.bench import HostSyncFinder
from regbench.data.batches import Batches
from regbench.errors import PluginError
from regbench.evaluation import evaluate as module
from regbench.evaluation.bundled import regbench_metrics
from regbench.evaluation.evaluate import (
    NotFinite,
    batch_of,
    decode_codes,
    encode_features,
    evaluate_reconstruction,
    quick_mse,
)
from regbench.evaluation.metric import Metric
from regbench.evaluation.metrics import MSE, SSIM
from regbench.evaluation.mode import evaluating
from regbench.evaluation.ssim import SSIMAuditFailed
from regbench.model import Model, build_model
from regbench.nets import NetShape
from tests.evaluation.models import Noisy, Plain, random_images, small_model

METRICS = [metric() for metric in regbench_metrics()]


def mean_reconstruction(model: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """x and logits at the mean code, all images at once."""
    x = images.float() / 255
    with torch.no_grad(), model.sampling(False):
        model.eval()
        logits = model.decode(model.encode(x))
        model.train()
    return x, logits


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 999])
def test_values_are_the_metrics_of_every_image_in_order(channels: int, batch_size: int) -> None:
    model, images = small_model(Noisy, channels=channels), random_images(50, channels=channels)
    x, logits = mean_reconstruction(model, images)
    found = evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0, batch_size=batch_size)
    assert list(found.per_image) == ["mse", "psnr", "ssim", "bce_excess"]
    for metric in METRICS:
        values = found.per_image[metric.name]
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, metric.per_image(x, logits).numpy(), rtol=1e-4, atol=1e-6)
        assert found.means[metric.name] == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    mse = ((logits.double().sigmoid() - x.double()) ** 2).mean().item()
    assert found.means["mse"] == pytest.approx(mse, rel=1e-5)


def test_a_sampled_code_has_a_stream_of_its_own() -> None:
    model, images = small_model(Noisy), random_images(20)

    def mse(sampling: bool, seed: int, purpose: tuple[str | int, ...] = ()) -> list[float]:
        found = evaluate_reconstruction(
            model, images, [MSE()], sampling=sampling, seed=seed, batch_size=8, purpose=purpose
        )
        return found.per_image["mse"].tolist()

    sampled = mse(True, 0)
    torch.rand(5)
    assert mse(True, 0) == sampled
    assert mse(True, 1) != sampled
    assert mse(True, 0, ("again",)) != sampled
    assert mse(False, 0) == mse(False, 1) != sampled


@pytest.mark.parametrize("fails", [False, True])
def test_training_goes_on_as_if_nothing_had_happened(fails: bool) -> None:
    model, images = small_model(Noisy), random_images(20)
    model.train()
    model.net.decoder.eval()  # a part that its owner keeps in eval mode
    before = [module.training for module in model.modules()]
    precision = torch.backends.cudnn.conv.fp32_precision
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    if fails:
        with pytest.raises(PluginError):
            evaluate_reconstruction(model, images, [Broken()], sampling=False, seed=0)
    else:
        evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0)
        evaluate_reconstruction(model, images, METRICS, sampling=True, seed=0)
        encode_features(model, images)
        decode_codes(model, torch.zeros(3, 6))
        quick_mse(model, images)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == before
    assert model.regularizer.sampling is True
    assert torch.is_grad_enabled()
    assert torch.backends.cudnn.conv.fp32_precision == precision


def test_evaluation_is_in_float32_whatever_surrounds_it() -> None:
    model, images = small_model(), random_images(20)
    outside = evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0)
    for name, values in outside.per_image.items():
        np.testing.assert_array_equal(inside.per_image[name], values)


def test_full_float32_is_asked_for_inside_and_put_back_after() -> None:
    model = small_model()
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with evaluating(model, seed=0, purpose=("test",), sampling=False):
            assert matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_no_batch_waits_for_the_device() -> None:
    model, images = small_model(Noisy), random_images(60)
    waits = []
    for batch_size in (60, 4):
        with HostSyncFinder() as finder:
            evaluate_reconstruction(model, images, METRICS, sampling=True, seed=0, batch_size=batch_size)
        waits.append(finder.found)
    one_batch, many_batches = waits
    assert many_batches == one_batch  # what is fetched once, at the end


def test_ssim_is_audited_on_32_images_of_the_evaluation_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = small_model(Noisy), random_images(50)
    for sampling in (False, True):
        audit = evaluate_reconstruction(
            model, images, METRICS, sampling=sampling, seed=0, batch_size=9
        ).ssim_audit
        assert audit is not None
        assert audit["images"] == 32
        assert 0 < audit["largest_difference"] < 1e-6
    few = evaluate_reconstruction(model, images[:5], METRICS, sampling=False, seed=0).ssim_audit
    assert few is not None
    assert few["images"] == 5
    assert evaluate_reconstruction(model, images, [MSE()], sampling=False, seed=0).ssim_audit is None

    class Wrong(SSIM):
        def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
            return super().per_image(x_BCHW, logits_BCHW) + 2e-4

    with pytest.raises(SSIMAuditFailed):
        evaluate_reconstruction(model, images, [Wrong()], sampling=False, seed=0)


class Broken(Metric):
    name, label, better, definition = "broken", "Broken", "lower", "one number per batch"

    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        return (logits_BCHW - x_BCHW).square().mean()


class NoTensor(Broken):
    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        return 0.5  # type: ignore[return-value]


@pytest.mark.parametrize(("metric", "found"), [(Broken(), r"shape \(\)"), (NoTensor(), "float")])
def test_a_metric_that_breaks_its_contract_is_named(metric: Metric, found: str) -> None:
    with pytest.raises(PluginError, match=rf"'broken': per_image returned {found}.*\(20,\)") as caught:
        evaluate_reconstruction(small_model(), random_images(20), [metric], sampling=False, seed=0)
    assert caught.value.hint is not None


def test_a_model_that_has_diverged_is_said_so() -> None:
    model = small_model()
    with torch.no_grad():
        model.net.decoder.last.bias.fill_(float("nan"))
    with pytest.raises(NotFinite, match="MSE is NaN or infinite on 20 of 20 images"):
        evaluate_reconstruction(model, random_images(20), METRICS, sampling=False, seed=0)


def test_streamed_batches_give_the_same_numbers() -> None:
    model, images = small_model(), random_images(30)
    resident = evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0, batch_size=8)
    batches = Batches(images, "cpu", resident=False)
    streamed = evaluate_reconstruction(model, batches, METRICS, sampling=False, seed=0, batch_size=8)
    for name, values in resident.per_image.items():
        np.testing.assert_array_equal(streamed.per_image[name], values)
    assert streamed.ssim_audit == resident.ssim_audit


def test_quick_mse_is_the_mean_of_the_mse_at_the_mean_code() -> None:
    model, images = small_model(Noisy), random_images(30)
    x, logits = mean_reconstruction(model, images)
    expected = ((logits.double().sigmoid() - x.double()) ** 2).mean().item()
    assert quick_mse(model, images, batch_size=11) == pytest.approx(expected, rel=1e-5)
    assert quick_mse(model, images, seed=5) == pytest.approx(expected, rel=1e-5)


def test_kept_reconstructions_are_rounded_pictures() -> None:
    model, images = small_model(Plain, channels=3), random_images(10, channels=3)
    _, logits = mean_reconstruction(model, images)
    keep = np.array([0, 3, 4, 5, 9])
    pictures = evaluate_reconstruction(
        model, images, METRICS, sampling=False, seed=0, batch_size=4, keep=keep
    ).kept_KCHW
    assert pictures.dtype == np.uint8
    assert pictures.shape == (5, 3, 16, 16)
    assert np.abs(pictures - 255 * logits[keep].sigmoid().numpy()).max() <= 0.501
    nothing = evaluate_reconstruction(model, images, METRICS, sampling=False, seed=0).kept_KCHW
    assert nothing.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("sampling", [False, True])
def test_known_features_spare_the_encoder_and_change_nothing(
    sampling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = small_model(Noisy), random_images(33)  # 33 = 4 x 8 + 1: no batch of one may be left
    expected = evaluate_reconstruction(model, images, METRICS, sampling=sampling, seed=2, batch_size=8)
    features = encode_features(model, images)
    monkeypatch.setattr(model, "features", None)
    found = evaluate_reconstruction(
        model, images, METRICS, sampling=sampling, seed=2, batch_size=8, features=features
    )
    for name, values in expected.per_image.items():
        np.testing.assert_allclose(found.per_image[name], values, rtol=1e-5, atol=1e-6)


def test_wide_nets_take_smaller_batches_on_a_cpu_and_give_the_same() -> None:
    shape = NetShape(channels=1, side=28, latent=6, features=12, widths=(96, 160))
    wide, images = build_model(shape, Plain, seed=3), random_images(70, side=28)
    assert (batch_of(wide), batch_of(small_model())) == (64, 256)
    found = evaluate_reconstruction(wide, images, METRICS, sampling=False, seed=0)
    at_once = evaluate_reconstruction(wide, images, METRICS, sampling=False, seed=0, batch_size=70)
    for name, values in at_once.per_image.items():
        np.testing.assert_allclose(found.per_image[name], values, rtol=1e-5, atol=1e-6)


def test_codes_are_decoded_by_the_decoder_alone() -> None:
    model = small_model(Noisy)
    model.regularizer.sampling = True
    z = torch.randn(5, 6)
    with torch.no_grad():
        expected = model.decode(z).sigmoid().mul(255).round().numpy()
    np.testing.assert_array_equal(decode_codes(model, z, batch_size=2), expected)


def test_values_do_not_drift_with_rounding_to_uint8() -> None:
    assert module.to_uint8(torch.tensor([-200.0, 0.0, 200.0])).tolist() == [0, 128, 255]
