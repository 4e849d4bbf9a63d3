"""The evaluation of one trained cell: what goes into its result besides the training's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regbench.data.batches import Batches
from regbench.data.split import Split
from regbench.evaluation.anchors import mean_image_mse
from regbench.evaluation.classifier import Classifier
from regbench.evaluation.clusters import cluster_scores, separation
from regbench.evaluation.evaluate import (
    Features,
    decode_codes,
    encode_features,
    evaluate_reconstruction,
    quick_mse,
)
from regbench.evaluation.latents import collapse_warnings, encode_images, latent_diagnostics
from regbench.evaluation.metric import Metric
from regbench.evaluation.probe import TEST_IMAGES, TRAIN_IMAGES, probe_accuracy
from regbench.evaluation.references import real_features
from regbench.evaluation.regularity import (
    cluster_distances,
    normal_distances,
    prior_distances,
    spectrum,
    spectrum_summary,
)
from regbench.evaluation.sample_quality import RealFeatures, frechet_distance, sample_scores
from regbench.evaluation.samples import SAMPLES, draw_samples
from regbench.evaluation.selection import code_index, curve_index, fixed_index, latent_index, shown_index
from regbench.evaluation.synthesis import class_table, interpolations, sample_agreement, synthesis_pictures
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
    classifier: Classifier | None = None
    """The suite's own classifier of the data set; ``None`` where it has no classes."""
    real: RealFeatures | None = None
    """Its features of the test images that samples are compared with."""
    accuracy: float | None = None
    """Its accuracy on the test images."""

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

    def judged_by(self, classifier: Classifier | None) -> CellData:
        """The same data with a classifier in whose features samples are judged."""
        if classifier is None:
            return replace(self, classifier=None, real=None, accuracy=None)
        accuracy = classifier.accuracy(self.split.test, self.split.test_labels)
        return replace(
            self, classifier=classifier, real=real_features(classifier, self.split), accuracy=accuracy
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
        return CellData.on(self.train.device, few, _GLIMPSE).judged_by(self.classifier)


def curve_point(model: Model, data: CellData) -> dict[str, Any]:
    """Test and training MSE at the mean code and, for methods with clusters, how those agree with the labels.

    Clusters are judged on the 2,000 test images whose codes are kept.
    """
    features = encode_features(model, data.test)
    point: dict[str, Any] = {
        "test_mse": quick_mse(model, data.test, features=features),
        "train_mse": quick_mse(model, data.curve),
    }
    if has_clusters(model):
        latent = torch.from_numpy(data.latent).to(model.progress.device)
        codes_ND = encode_images(model, features[latent]).z_ND
        point["clusters"] = clusters(model, codes_ND, data.labels(data.latent))
    return point


def has_clusters(model: Model) -> bool:
    """Whether the method assigns codes to clusters."""
    return _assigned(model, np.zeros((2, model.regularizer.dims.latent), dtype=np.float32)) is not None


def _assigned(model: Model, codes_ND: NDArray[np.float32]) -> NDArray[np.int64] | None:
    with torch.no_grad():
        assigned = model.regularizer.assign(torch.from_numpy(codes_ND).to(model.progress.device))
    return None if assigned is None else assigned.cpu().numpy().astype(np.int64)


def clusters(
    model: Model, codes_ND: NDArray[np.float32], labels_N: NDArray[np.int64] | None
) -> dict[str, Any] | None:
    """Cluster scores of codes against labels; ``None`` for methods without clusters.

    Without labels: sizes, dead clusters and separation only.
    """
    assigned = _assigned(model, codes_ND)
    if assigned is None:
        return None
    with torch.no_grad():
        prototypes = model.regularizer.prototypes()
    known = np.zeros(len(codes_ND), dtype=np.int64) if labels_N is None else labels_N
    scores = cluster_scores(assigned, known, None if prototypes is None else len(prototypes))
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
    """Evaluate a trained model on the test images: encoded once, and decoded once for each kind of code."""
    features = encode_features(model, data.test)
    at_mean = evaluate_reconstruction(
        model, data.test, metrics, sampling=False, seed=seed, features=features, keep=data.latent
    )
    sampled = None
    if model.regularizer.stochastic:
        sampled = evaluate_reconstruction(
            model, data.test, metrics, sampling=True, seed=seed, features=features
        ).means
    mse = at_mean.means["mse"] if "mse" in at_mean.means else quick_mse(model, data.test, features=features)
    codes = encode_images(model, features, seed=seed)
    # As many samples as test images they are compared with; the first of them are the pictures.
    samples = draw_samples(model, data.train, n=max(SAMPLES, len(data.latent)), seed=seed)
    latents = latent_diagnostics(codes.z_ND)
    regularity, spectrum_D = _regularity(model, features, codes.z_ND, seed)
    table_KL = _class_table(model, data, codes.z_ND)
    diagnostics = {
        **latents,
        "collapse": collapse_warnings(latents, mse=mse, mean_image_mse=data.mean_image_mse),
        "alive_features": codes.alive_features,
        **regularity,
        "probe": _probe(model, data, codes.z_ND, seed),
        "samples": _sample_quality(data, at_mean.kept_KCHW, samples.images_NCHW),
        "clusters": clusters(model, codes.z_ND, data.labels()),
    }
    if table_KL is not None and data.classifier is not None:
        agreement = sample_agreement(model, data.classifier, table_KL, seed=seed)
        diagnostics["clusters"]["sample_agreement"] = agreement
    return Assessment(
        metrics={"mean": at_mean.means, "sampled": sampled},
        diagnostics=diagnostics,
        samples_from=samples.source,
        ssim_audit=at_mean.ssim_audit,
        arrays={
            **{f"per_image_{name}": values for name, values in at_mean.per_image.items()},
            **_pictures(model, data, codes.z_ND, at_mean.kept_KCHW),
            **interpolations(model, codes.z_ND, data.shown),
            **({} if table_KL is None else synthesis_pictures(model, table_KL, seed=seed)),
            "samples": samples.images_NCHW[:SAMPLES],
            "spectrum": spectrum_D,
        },
    )


def _regularity(
    model: Model, features: Features, mean_ND: NDArray[np.float32], seed: int
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """How the aggregate codes relate to priors, and the eigenvalues of their covariance.

    Aggregate: one sampled code of each image where the method samples, for only those make up what its
    regularizer is about; else the codes.
    """
    z_ND = mean_ND
    if model.regularizer.stochastic:
        z_ND = encode_images(model, features, seed=seed, sampling=True).z_ND
    chosen_ND = torch.from_numpy(z_ND[code_index(len(z_ND))]).to(model.progress.device)
    spectrum_D = spectrum(chosen_ND)
    distances = {
        "prior": prior_distances(model, chosen_ND, seed=seed),
        "normal": normal_distances(chosen_ND, seed=seed),
        "cluster_prior": cluster_distances(model, chosen_ND, seed=seed),
        "spectrum": spectrum_summary(spectrum_D),
    }
    return distances, spectrum_D


def _probe(model: Model, data: CellData, codes_ND: NDArray[np.float32], seed: int) -> dict[str, float] | None:
    """Classes read off mean codes; ``None`` where there are none to read."""
    labels_N = data.labels()
    if labels_N is None:
        return None
    train = curve_index(len(data.split.train), TRAIN_IMAGES)
    test = fixed_index(len(data.split.test), TEST_IMAGES, "test")
    images = Batches(data.split.train[train], model.progress.device)
    fitted_ND = encode_images(model, images, seed=seed).z_ND
    return probe_accuracy(fitted_ND, data.split.train_labels[train], codes_ND[test], labels_N[test])


def _sample_quality(
    data: CellData, rebuilt_KCHW: NDArray[np.uint8], samples_NCHW: NDArray[np.uint8]
) -> dict[str, float | None] | None:
    """Samples, and reconstructions, against test images in the classifier's features; ``None`` without one."""
    if data.classifier is None or data.real is None or len(data.latent) < 2:
        return None
    rebuilt_NF, _ = data.classifier.judge(rebuilt_KCHW)
    # A few test images are fewer than the samples that are drawn for the pictures.
    drawn_NF, _ = data.classifier.judge(samples_NCHW[: len(data.latent)])
    scores = sample_scores(data.real, drawn_NF)
    return {
        **(scores or dict.fromkeys(("precision", "recall", "density", "coverage"))),
        "frechet": frechet_distance(data.real.features_NF, drawn_NF),
        "frechet_reconstructions": frechet_distance(data.real.features_NF, rebuilt_NF),
    }


def _class_table(model: Model, data: CellData, codes_ND: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """Test images of each class in each cluster; ``None`` without clusters or classes."""
    assigned, labels_N = _assigned(model, codes_ND), data.labels()
    if assigned is None or labels_N is None:
        return None
    prototypes = model.regularizer.prototypes()
    count = int(assigned.max()) + 1 if prototypes is None else len(prototypes)
    return class_table(assigned, labels_N, count, len(data.split.classes))


def _pictures(
    model: Model, data: CellData, codes_ND: NDArray[np.float32], rebuilt_KCHW: NDArray[np.uint8]
) -> Mapping[str, NDArray[Any]]:
    """The arrays that figures are drawn from; see ``regbench.store.records``."""
    pictures: dict[str, NDArray[Any]] = {
        "shown_index": data.shown,
        "shown_images": data.split.test[data.shown],
        # The shown images are among those whose codes and reconstructions are kept.
        "reconstructions": rebuilt_KCHW[np.searchsorted(data.latent, data.shown)],
        "latents": codes_ND[data.latent],
        "latent_index": data.latent,
        "latent_labels": data.split.test_labels[data.latent],
    }
    prototypes = model.regularizer.prototypes()
    if prototypes is not None:
        pictures["prototypes"] = prototypes.detach().float().cpu().numpy()
        pictures["prototype_images"] = decode_codes(model, prototypes)
    return pictures
