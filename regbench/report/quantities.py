"""What the diagnostics of a result are called, and what they are: label and definition by column."""

from __future__ import annotations

_DISTANCES = (
    ("mmd", "squared MMD", "unbiased squared MMD, multi-scale inverse multiquadratic kernel"),
    ("sw2", "SW2", "sliced Wasserstein-2 distance, in units of one coordinate"),
    ("kl", "KL", "KL of Gaussian fits in nats"),
)
_CODES = "test codes (sampled ones where the method samples)"


def _distances(column: str, label: str, between: str, floor: str) -> dict[str, tuple[str, str]]:
    """Label and definition of the three distances to a prior and of their floors."""
    found = {}
    for name, short, text in _DISTANCES:
        found[f"{column}_{name}"] = (f"{short} to {label}", f"{text}, {between}")
        found[f"{column}_{name}_floor"] = (
            f"{short} to {label}, floor",
            f"the same for as many draws of {floor} as there are codes",
        )
    return found


DIAGNOSTICS = {
    "active_units": (
        "active units",
        "latent units whose mean code varies over test images by more than 0.01",
    ),
    "alive_features": ("alive features", "encoder features that differ between at least two test images"),
    "latent_rank": ("latent rank", "singular values of the centred test codes above 1e-4 of the largest"),
    "effective_rank": ("effective rank", "exp of the entropy of the test codes' normalised singular values"),
    "z_norm_mean": ("mean norm of z", "mean Euclidean norm of the test codes"),
    "z_norm_max": ("largest norm of z", "largest Euclidean norm of a test code"),
    "clusters_purity": ("purity", "share of test images in a cluster whose most frequent label is theirs"),
    "clusters_nmi": ("NMI", "normalised mutual information of clusters and labels"),
    "clusters_ari": ("ARI", "adjusted Rand index of clusters and labels"),
    "clusters_accuracy": ("accuracy", "label accuracy under the best matching of clusters to labels"),
    "clusters_dead": ("dead clusters", "clusters without a test image"),
    "clusters_separation": ("separation", "mean distance of two prototypes over the root of the latent size"),
    "clusters_sample_agreement": (
        "sample agreement",
        "share of 64 samples around a prototype that the suite's classifier gives to its most frequent class, "
        "mean over prototypes that have test images",
    ),
    **_distances("prior", "prior", f"from {_CODES} to the method's own prior", "the prior"),
    **_distances("normal", "N(0, I)", f"from {_CODES} to N(0, I)", "N(0, I)"),
    **_distances(
        "cluster_prior",
        "cluster prior",
        "from each cluster's test codes to its own prior, mean weighted by size (KL: once, of all differences "
        "from the clusters' centres)",
        "the clusters' priors",
    ),
    "spectrum_largest": ("largest eigenvalue", "largest eigenvalue of the covariance of " + _CODES),
    "spectrum_median": ("median eigenvalue", "median eigenvalue of the covariance of " + _CODES),
    "spectrum_smallest": ("smallest eigenvalue", "smallest eigenvalue of the covariance of " + _CODES),
    "probe_knn": (
        "kNN probe",
        "test accuracy of the 10 nearest of at most 5,000 training images' mean codes",
    ),
    "probe_linear": (
        "linear probe",
        "test accuracy of logistic regression on at most 5,000 training images' mean codes",
    ),
    "samples_precision": (
        "precision",
        "share of samples within a test image's 5-neighbour ball, in the features of the suite's classifier",
    ),
    "samples_recall": (
        "recall",
        "share of test images within a sample's 5-neighbour ball, in the same features",
    ),
    "samples_density": (
        "density",
        "test images' 5-neighbour balls around a sample, over 5, mean over samples, in the same features",
    ),
    "samples_coverage": (
        "coverage",
        "share of test images with a sample in their 5-neighbour ball, in the same features",
    ),
    "samples_frechet": (
        "Frechet distance",
        "squared Frechet distance of Gaussians fitted to samples and to test images, in the same features",
    ),
    "samples_frechet_reconstructions": (
        "Frechet distance of reconstructions",
        "the same for the test images' reconstructions in place of samples",
    ),
}
