"""Runs the fused kernel on the CPU, in Triton's interpreter, and saves what it returns: ``python FILE FOLDER``.

A program, because the interpreter must be chosen before Triton is imported.
"""

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import torch

from regbench.ops.fused_transport import transport


def main(folder: Path) -> None:
    cases = torch.load(folder / "cases.pt", weights_only=True)
    found = [
        (*transport(scores_BK, epsilon, iterations, annealed=True),
         transport(scores_BK, epsilon, iterations, annealed=False)[0])
        for scores_BK, epsilon, iterations in cases
    ]  # fmt: skip
    torch.save(found, folder / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
