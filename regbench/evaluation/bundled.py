"""The metrics that come with regbench."""

from __future__ import annotations

from regbench.evaluation.metric import Metric
from regbench.evaluation.metrics import MSE, PSNR, SSIM, BCEExcess
from regbench.hookspecs import hookimpl


@hookimpl
def regbench_metrics() -> list[type[Metric]]:
    return [MSE, PSNR, SSIM, BCEExcess]
