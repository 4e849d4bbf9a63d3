"""The pictures and arrays of a made-up cell; see :mod:`tests.report.synthetic`.

Shape suffixes: N test images, R shown images, L latents, C channels, H height, W width,
D latent units, K prototypes, P pairs of images, T steps between them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
CLASS_NAMES = tuple(str(label) for label in range(CLASSES))
SCALES = (0.25, 0.5, 1.0, 2.0)
NOISE = {"plain": 0.09, "vae-kl": 0.24, "infovae-mmd": 0.20, "proto-vae": 0.11}
"""Standard deviation of the reconstruction error, per kind of method."""


class Data:
    """Test images of ten classes: a bar through the middle, turned by its class."""

    def __init__(self, name: str, sizes: Mapping[str, int], classes: Sequence[str] = CLASS_NAMES) -> None:
        rng = rng_for("data", name)
        self.sizes = sizes
        self.classes = classes
        self.rng_name = name
        self.labels_N = rng.integers(0, CLASSES, sizes["test"])
        self.images_NCHW = np.stack([self.draw(int(label), rng) for label in self.labels_N])
        self.shown_R = np.sort(rng.choice(sizes["test"], min(sizes["shown"], sizes["test"]), replace=False))

    def draw(self, label: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """One image (C, H, W) in [0, 1]."""
        side = self.sizes["side"]
        angle = np.pi * label / CLASSES + rng.normal(0, 0.08)
        y_HW, x_HW = np.mgrid[0:side, 0:side] / (side - 1) * 2 - 1
        x_HW, y_HW = x_HW - rng.normal(0, 0.08), y_HW - rng.normal(0, 0.08)
        along_HW = x_HW * np.cos(angle) + y_HW * np.sin(angle)
        across_HW = -x_HW * np.sin(angle) + y_HW * np.cos(angle)
        bar_HW = np.exp(-((across_HW / 0.18) ** 2) - (along_HW / 0.75) ** 4)
        tint_C = np.linspace(1.0, 0.4, self.sizes["channels"])
        return np.asarray(bar_HW * tint_C[:, None, None])

    def anchors(self) -> dict[str, Any]:
        mean_mse = float(((self.images_NCHW - self.images_NCHW.mean(0)) ** 2).mean())
        return {
            "mean_image_mse": mean_mse,
            "pca_mse": mean_mse / 40,
            "pca_mse_clipped": mean_mse / 45,
            "pca_components": 256,
            "pixel_entropy": 101.5,
        }


def kind_of(method: str) -> str:
    lower = method.lower()
    if "proto" in lower:
        return "proto-vae"
    if "info" in lower:
        return "infovae-mmd"
    return "vae-kl" if "vae" in lower else "plain"


def prototypes_of(method: str) -> int:
    if kind_of(method) != "proto-vae":
        return 0
    found = re.search(r"K\s*=\s*(\d+)", method)
    return int(found.group(1)) if found else 10


def is_stochastic(method: str) -> bool:
    return kind_of(method) in ("vae-kl", "infovae-mmd") and "deterministic" not in method.lower()


def rng_for(*purpose: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(purpose).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def make_arrays(
    method: str, seed: int, data: Data, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[Any]]]:
    """Per-image metrics (float64, N), and the other arrays of ``arrays.npz``."""
    # A factor of the seed's own, shared by all methods: paired differences are tighter than unpaired ones.
    shared = float(np.exp(rng_for("seed", data.rng_name, seed).normal(0, 0.08)))
    noise = NOISE[kind_of(method)] * shared * float(np.exp(rng.normal(0, 0.02)))
    images_NCHW = data.images_NCHW
    hardness_N = np.exp(rng.normal(0, 0.3, len(images_NCHW)))[:, None, None, None]
    error_NCHW = rng.normal(0, 1, images_NCHW.shape) * noise * hardness_N * (0.2 + images_NCHW)
    recon_NCHW = np.clip(images_NCHW + error_NCHW, 0, 1)
    mse_N = ((recon_NCHW - images_NCHW) ** 2).mean((1, 2, 3))
    per_image = {
        "mse": mse_N,
        "psnr": -10 * np.log10(mse_N),
        "ssim": np.clip(np.exp(-25 * mse_N), 0, 1),
        "bce_excess": 2.2 * images_NCHW[0].size * mse_N,
    }
    latent, labels_N = data.sizes["latent"], data.labels_N
    count = prototypes_of(method)
    centres_KD = rng_for("centres", data.rng_name).normal(0, 2.5, (CLASSES, latent))
    latent_index_L = np.arange(min(len(images_NCHW), 2000))
    latents_LD = centres_KD[labels_N[latent_index_L]] + rng.normal(0, 1, (len(latent_index_L), latent))
    samples_64CHW = np.stack([data.draw(int(rng.integers(CLASSES)), rng) for _ in range(64)])
    arrays: dict[str, NDArray[Any]] = {
        "shown_index": data.shown_R.astype(np.int64),
        "shown_images": _uint8(images_NCHW[data.shown_R]),
        "reconstructions": _uint8(recon_NCHW[data.shown_R]),
        "latents": latents_LD.astype(np.float32),
        "spectrum": np.linalg.eigvalsh(np.cov(latents_LD.T))[::-1],
        "latent_index": latent_index_L.astype(np.int64),
        "latent_labels": labels_N[latent_index_L].astype(np.int64),
        "samples": _uint8(samples_64CHW + rng.normal(0, noise, samples_64CHW.shape)),
    }
    if count:
        arrays["prototypes"] = centres_KD[np.arange(count) % CLASSES].astype(np.float32)
        arrays["prototype_images"] = _uint8(np.stack([data.draw(k % CLASSES, rng) for k in range(count)]))
    return per_image, arrays | make_journeys(method, data, rng_for("journeys", method, data.rng_name, seed))


def make_journeys(method: str, data: Data, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Images between pairs of shown test images, and around the prototypes where there are classes, too."""
    pairs_P2 = data.shown_R[:4].reshape(-1, 2)
    shares_T = np.linspace(0, 1, 8)[:, None, None, None]
    between_PTCHW = [
        (1 - shares_T) * data.images_NCHW[a] + shares_T * data.images_NCHW[b] for a, b in pairs_P2
    ]
    arrays = {
        "interpolations": _uint8(np.stack(between_PTCHW) + rng.normal(0, NOISE[kind_of(method)] / 4)),
        "interpolation_pairs": pairs_P2.astype(np.int64),
    }
    if prototypes_of(method) and data.classes:
        around = [
            [
                [data.draw(c, rng) + rng.normal(0, 0.1 * scale, data.images_NCHW[0].shape) for _ in range(6)]
                for scale in SCALES
            ]
            for c in range(min(CLASSES, len(data.classes)))
        ]
        chosen = [c if c < prototypes_of(method) else -1 for c in range(len(around))]
        arrays["synthesis"] = _uint8(np.array(around) * np.greater(chosen, -1)[(..., *[None] * 5)])
        arrays["synthesis_scales"] = np.array(SCALES)
        arrays["synthesis_prototypes"] = np.array(chosen, dtype=np.int64)
    return arrays


def _uint8(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(np.round(np.clip(images, 0, 1) * 255), dtype=np.uint8)


def make_clusters(method: str, test_images: int, rng: np.random.Generator) -> dict[str, Any] | None:
    count = prototypes_of(method)
    if not count:
        return None
    sizes = rng.multinomial(test_images, rng.dirichlet(np.full(count, 4.0)))
    purity, nmi, ari, accuracy = np.sort(rng.uniform(0.3, 0.9, 4))[::-1].tolist()
    return {
        "purity": purity,
        "nmi": nmi,
        "ari": ari,
        "accuracy": accuracy,
        "sizes": sizes.tolist(),
        "dead": int((sizes == 0).sum()),
        "separation": 0.8 if count > 1 else None,
    }
