"""Suites and plugins small enough to run in a test."""

from __future__ import annotations

from pathlib import Path

TINY = """
[suite]
name = "tiny"
seeds = {seeds}
metrics = {metrics}

[model]
latent = 4
features = 8
widths = [4]

[training]
epochs = {epochs}
warmup = 1
batch_size = 32

[[datasets]]
name = "digits"
train_images = 64
test_images = 40
"""

PLUGIN = '''
import torch
import regbench


class Falling(regbench.Regularizer):
    """Raises in its first regularized step, once it is asked to."""

    name = "falling"

    class Options(regbench.Options):
        weight: float = regbench.Field(1.0, ge=0, description="factor")
        fall: bool = regbench.Field(False, description="raise")
        explode: bool = regbench.Field(False, description="lose its number")

    def forward(self, code_BD, h_BF):
        if self.options.fall:
            raise RuntimeError("I fell")
        term = self.options.weight * code_BD.pow(2).sum(1).mean()
        return code_BD, {"size": (term * 0).log() if self.options.explode else term}


@regbench.hookimpl
def regbench_regularizers():
    return [Falling]
'''


def write_suite(
    folder: Path, methods: str, *, seeds: str = "1", epochs: int = 2, metrics: str = '["mse", "ssim"]'
) -> Path:
    """A suite on a few digits with the given ``[[regularizers]]``."""
    path = folder / "tiny.toml"
    path.write_text(TINY.format(seeds=seeds, epochs=epochs, metrics=metrics) + methods)
    return path


def write_plugin(folder: Path, text: str = PLUGIN) -> Path:
    path = folder / "falling.py"
    path.write_text(text)
    return path


AE = """
[[regularizers]]
name = "ae"
label = "AE"
"""

FALLING = """
[[regularizers]]
name = "falling"
label = "{label}"
options = {{ {options} }}
"""
