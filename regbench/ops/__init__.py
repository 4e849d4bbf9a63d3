"""Pure tensor functions for latent regularizers.

They compute in float32 or better whatever autocast or TF32 setting surrounds them, never wait for the device, and
are differentiable unless said otherwise.
"""

from regbench.ops.compilation import compiled
from regbench.ops.discrepancy import mmd, mmd_to_standard_normal, per_prototype_mmd
from regbench.ops.gaussian import kl_to_standard_normal, normal_log_densities, reparameterize
from regbench.ops.kernels import (
    Bandwidth,
    GaussianKernel,
    InverseMultiquadraticKernel,
    Kernel,
    KernelName,
    kernel,
    squared_distances,
)
from regbench.ops.precision import full_precision, matmul
from regbench.ops.transport import equipartition, prototype_mass_deviation, sinkhorn

__all__ = [
    "Bandwidth",
    "GaussianKernel",
    "InverseMultiquadraticKernel",
    "Kernel",
    "KernelName",
    "compiled",
    "equipartition",
    "full_precision",
    "kernel",
    "kl_to_standard_normal",
    "matmul",
    "mmd",
    "mmd_to_standard_normal",
    "normal_log_densities",
    "per_prototype_mmd",
    "prototype_mass_deviation",
    "reparameterize",
    "sinkhorn",
    "squared_distances",
]
