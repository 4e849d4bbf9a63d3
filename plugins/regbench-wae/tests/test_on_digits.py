"""What defines a Wasserstein autoencoder, on real images and by regbench's own diagnostics."""

from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
import pytest

import regbench
import regbench_wae

SUITE = """
[suite]
name = "wasserstein"
seeds = 1
metrics = ["mse"]

[model]
latent = 6
features = 32
widths = [8]
bottleneck_activation = "none"

[training]
epochs = 24
warmup = 6
batch_size = 32
lr = 3e-3

[[datasets]]
name = "digits"
train_images = 512
test_images = 256
"""

METHODS = """
[[regularizers]]
name = "ae"
label = "ae"

[[regularizers]]
name = "wae-mmd"
label = "wae-mmd"

[[regularizers]]
name = "swae"
label = "swae"

[[regularizers]]
name = "wae-gan"
label = "wae-gan"
options = { adversary_layers = 2, adversary_width = 64 }
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("digits")
    suite = folder / "suite.toml"
    suite.write_text(SUITE + METHODS)
    # In a checkout the package may not be installed.
    plugins = [] if entry_points(group="regbench", name="wae") else [Path(regbench_wae.__file__)]
    run = regbench.run(suite, runs_dir=folder / "runs", device="cpu", plugins=plugins)
    return regbench.load_results(run.path).set_index("method")


@pytest.mark.parametrize("method", ["wae-mmd", "swae", "wae-gan"])
def test_the_aggregate_codes_are_nearer_the_prior_than_an_autoencoders(
    method: str, results: pd.DataFrame
) -> None:
    for distance in ("normal_mmd", "normal_sw2"):
        found, plain = results.loc[method, distance], results.loc["ae", distance]
        assert found < 0.25 * plain, distance
    # Nor are they near by having shrunk to a point, which is 1 away at least, or by telling nothing of the image.
    assert results.loc[method, "normal_sw2"] < 0.7
    assert results.loc[method, "mse"] < 2 * results.loc["ae", "mse"]
