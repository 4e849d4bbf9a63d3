"""The evaluation of one trained cell: what goes into its result besides the training's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regbench.data.batches import Batches
from regbench.data.split import Split
from regbench.evaluation.anchors import mean_image_mse
from regbench.evaluation.clusters import cluster_scores, separation
from regbench.evaluation.evaluate import decode_codes, evaluate_reconstruction, quick_mse, reconstruct
from regbench.evaluation.latents import collapse_warnings, encode_images, latent_diagnostics
from regbench.evaluation.metric import Metric
from regbench.evaluation.samples import draw_samples
from regbench.evaluation.selection import curve_index, latent_index, shown_index
from regbench.model import Model

_GLIMPSE = 32


@dataclass(frozen=True)
class CellData:
    """A data set on the device, with the images that curves and pictures are made of."""

    split: Split
    train: Batches
    test: Batches
    curve: Batches
    """The fixed training images of the learning curve."""
    shown: NDArray[np.int64]
    latent: NDArray[np.int64]
    mean_image_mse: float
    """What a model must beat at the very least."""

    @classmethod
    def on(cls, device: torch.device, split: Split, train_subset: int) -> CellData:
        n_test = len(split.test)
        chosen = curve_index(len(split.train), train_subset)
        return cls(
            split=split,
            train=Batches(split.train, device),
            test=Batches(split.test, device),
            curve=Batches(split.train[chosen], device),
            shown=shown_index(n_test),
            latent=latent_index(n_test),
            mean_image_mse=mean_image_mse(split.train, split.test),
        )

    def labels(self, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """Labels of the test images, or of the ``chosen`` ones; ``None`` where the data set has no classes."""
        if not self.split.classes:
            return None
        return self.split.test_labels if chosen is None else self.split.test_labels[chosen]

    def glimpse(self) -> CellData:
        """A few images of each kind, on which an evaluation can be rehearsed."""
        few = Split(
            train=self.split.train[:_GLIMPSE],
            train_labels=self.split.train_labels[:_GLIMPSE],
            heldout=self.split.heldout[:_GLIMPSE],
            heldout_labels=self.split.heldout_labels[:_GLIMPSE],
            test=self.split.test[:_GLIMPSE],
            test_labels=self.split.test_labels[:_GLIMPSE],
            classes=self.split.classes,
        )
        return CellData.on(self.train.device, few, _GLIMPSE)


def curve_point(model: Model, data: CellData) -> dict[str, Any]:
    """Test and training MSE at the mean code and, for methods with clusters, how those agree with the labels.

    Clusters are judged on the 2,000 test images whose codes are kept.
    """
    point: dict[str, Any] = {
        "test_mse": quick_mse(model, data.test),
        "train_mse": quick_mse(model, data.curve),
    }
    if has_clusters(model):
        images = Batches(data.split.test[data.latent], model.progress.device)
        codes_ND = encode_images(model, images).z_ND
        point["clusters"] = clusters(model, codes_ND, data.labels(data.latent))
    return point


def has_clusters(model: Model) -> bool:
    """Whether the method assigns codes to clusters."""
    dims = model.regularizer.dims
    with torch.no_grad():
        return model.regularizer.assign(torch.zeros(2, dims.latent, device=model.progress.device)) is not None


def clusters(
    model: Model, codes_ND: NDArray[np.float32], labels_N: NDArray[np.int64] | None
) -> dict[str, Any] | None:
    """Cluster scores of codes against labels; ``None`` for methods without clusters.

    Without labels: sizes, dead clusters and separation only.
    """
    method = model.regularizer
    with torch.no_grad():
        assigned = method.assign(torch.from_numpy(codes_ND).to(model.progress.device))
        prototypes = method.prototypes()
    if assigned is None:
        return None
    known = np.zeros(len(codes_ND), dtype=np.int64) if labels_N is None else labels_N
    scores = cluster_scores(assigned.cpu().numpy(), known, None if prototypes is None else len(prototypes))
    if labels_N is None:
        scores = {name: scores[name] for name in ("sizes", "dead")}
    apart = None if prototypes is None else separation(prototypes.float().cpu().numpy())
    return {**scores, "separation": None if apart is None else apart["mean"]}


@dataclass(frozen=True)
class Assessment:
    """Everything that is measured at the end of a cell."""

    metrics: dict[str, Any]
    """``mean`` and, for stochastic methods, ``sampled``: metric name -> mean over the test images."""
    diagnostics: dict[str, Any]
    samples_from: str
    ssim_audit: dict[str, Any] | None
    arrays: dict[str, NDArray[Any]]


def assess(model: Model, data: CellData, metrics: Sequence[Metric], seed: int) -> Assessment:
    """Evaluate a trained model on the test images."""
    at_mean = evaluate_reconstruction(model, data.test, metrics, sampling=False, seed=seed)
    sampled = None
    if model.regularizer.stochastic:
        sampled = evaluate_reconstruction(model, data.test, metrics, sampling=True, seed=seed).means
    mse = at_mean.means["mse"] if "mse" in at_mean.means else quick_mse(model, data.test)
    codes = encode_images(model, data.test, seed=seed)
    samples = draw_samples(model, data.train, seed=seed)
    latents = latent_diagnostics(codes.z_ND)
    diagnostics = {
        **latents,
        "collapse": collapse_warnings(latents, mse=mse, mean_image_mse=data.mean_image_mse),
        "alive_features": codes.alive_features,
        "clusters": clusters(model, codes.z_ND, data.labels()),
    }
    return Assessment(
        metrics={"mean": at_mean.means, "sampled": sampled},
        diagnostics=diagnostics,
        samples_from=samples.source,
        ssim_audit=at_mean.ssim_audit,
        arrays={
            **{f"per_image_{name}": values for name, values in at_mean.per_image.items()},
            **_pictures(model, data, codes.z_ND),
            "samples": samples.images_NCHW,
        },
    )


def _pictures(model: Model, data: CellData, codes_ND: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
    """The arrays that figures are drawn from; see ``regbench.store.records``."""
    shown = data.split.test[data.shown]
    pictures: dict[str, NDArray[Any]] = {
        "shown_index": data.shown,
        "shown_images": shown,
        "reconstructions": reconstruct(model, Batches(shown, model.progress.device)),
        "latents": codes_ND[data.latent],
        "latent_index": data.latent,
        "latent_labels": data.split.test_labels[data.latent],
    }
    prototypes = model.regularizer.prototypes()
    if prototypes is not None:
        pictures["prototypes"] = prototypes.detach().float().cpu().numpy()
        pictures["prototype_images"] = decode_codes(model, prototypes)
    return pictures
