"""What defines beta-VAE, on real images: a larger beta leaves fewer units in use, and reconstructions pay for it."""

from importlib.metadata import entry_points
from pathlib import Path

import regbench
import regbench_beta_vae

SUITE = """
[suite]
name = "capacity"
seeds = 1
metrics = ["mse"]

[model]
latent = 8
features = 32
widths = [8]

[training]
epochs = 12
warmup = 4
batch_size = 32
lr = 3e-3

[[datasets]]
name = "digits"
train_images = 512
test_images = 256

[[regularizers]]
name = "beta-vae"
label = "{beta}"
sweep = { beta = [0.1, 1, 4] }
"""


def test_beta_trades_units_in_use_for_reconstruction(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    # In a checkout the package may not be installed.
    plugins = [] if entry_points(group="regbench", name="beta-vae") else [Path(regbench_beta_vae.__file__)]
    run = regbench.run(suite, runs_dir=tmp_path / "runs", device="cpu", plugins=plugins)
    results = regbench.load_results(run.path).set_index("method")
    by_beta = results.loc[["0.1", "1", "4"]]
    assert by_beta["mse"].is_monotonic_increasing
    assert by_beta["active_units"].is_monotonic_decreasing
    assert by_beta["active_units"].iloc[-1] < by_beta["active_units"].iloc[0]
