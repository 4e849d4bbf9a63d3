"""The process's surroundings: Python and libraries, processors and memory, GPUs, the compiler, plugins, engines."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from regbench.doctor.finding import Finding
from regbench.execution.placement import Placement
from regbench.plugins import Registry
from regbench.training.launch import compiler_fault

WORKER_BYTES = 1_000_000_000
"""What a worker process takes before its first image: Python, torch and the rest."""


def check_libraries() -> list[Finding]:
    """Python and every library against the bounds that regbench declares."""
    try:
        declared = importlib.metadata.metadata("regbench")
    except importlib.metadata.PackageNotFoundError:
        said = "regbench runs from a folder that is not installed: nothing says which versions it needs"
        return [Finding("warning", "libraries", said, "pip install --editable . in its checkout")]
    found = []
    python, wanted = platform.python_version(), declared["Requires-Python"] or ""
    if not SpecifierSet(wanted).contains(python, prereleases=True):
        found.append(Finding("fault", "python", f"{python}; regbench needs {wanted}", "use another Python"))
    requirements = [Requirement(text) for text in importlib.metadata.requires("regbench") or []]
    wrong = [problem for each in requirements if (problem := unmet(each)) is not None]
    found += [Finding("fault", "libraries", problem, f"pip install '{each}'") for problem, each in wrong]
    if not found:
        found.append(
            Finding("ok", "libraries", f"Python {python}, torch {torch.__version__}, all as declared")
        )
    return found


def unmet(requirement: Requirement) -> tuple[str, str] | None:
    """Why a requirement is not met, and what to install; ``None`` where it is.

    One of an extra that is not installed is not missed.
    """
    extra = requirement.marker is not None and "extra" in str(requirement.marker)
    if not extra and requirement.marker is not None and not requirement.marker.evaluate():
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None if extra else (f"{requirement.name} is not installed; regbench needs {wanted}", wanted)
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} is {version}; regbench needs {wanted}", wanted


def check_processors(jobs: int) -> list[Finding]:
    """Cores against threads, and memory against so many workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    said = f"{cores} cores, {threads} threads in each process"
    found = [Finding("ok", "processors", said)]
    if threads > cores:
        found = [
            Finding("warning", "processors", said, f"threads wait for each other: OMP_NUM_THREADS={cores}")
        ]
    free = psutil.virtual_memory().available
    need = jobs * WORKER_BYTES
    said = f"{_gb(free)} free; {jobs} at a time take {_gb(need)} before their first image"
    if free < need:
        fewer = max(1, int(free // WORKER_BYTES))
        found.append(Finding("fault", "memory", said, f"fewer at a time: --jobs {fewer}"))
    else:
        found.append(Finding("ok", "memory", said))
    return found


def check_gpu(device: torch.device) -> list[Finding]:
    """What torch sees of the GPUs, where there are any."""
    if device.type == "mps":
        return [Finding("ok", "GPU", "Apple's, through MPS")]
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            return [Finding("ok", "GPU", "none; cells run on the CPU")]
        built = "has no CUDA support" if torch.version.cuda is None else "cannot use it"
        said = f"this machine has NVIDIA's driver, and torch {torch.__version__} {built}"
        todo = "install a torch that fits the driver (https://pytorch.org/get-started), or see nvidia-smi"
        return [Finding("warning", "GPU", said, todo)]
    return [_gpu(index) for index in range(torch.cuda.device_count())]


def _gpu(index: int) -> Finding:
    name = f"GPU {index}"
    try:
        with torch.cuda.device(index):
            free, total = torch.cuda.mem_get_info(index)
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            x = torch.ones(256, 256, device="cuda")
            right = float((x @ x).sum()) == 256.0**3
    except RuntimeError as error:  # CUDA's own errors
        return Finding(
            "fault", name, str(error).partition("\n")[0], "see nvidia-smi; --device cpu does without"
        )
    said = (
        f"{torch.cuda.get_device_name(index)}, {_gb(free)} of {_gb(total)} free, "
        f"CUDA {torch.version.cuda}, {'bf16' if bf16 else 'no bf16: precision auto means fp32'}"
    )
    if not right:
        return Finding("fault", name, f"{said}: a matrix product came out wrong", "do not use this GPU")
    if free < total / 10:
        return Finding("warning", name, said, "another process uses its memory: nvidia-smi shows which")
    return Finding("ok", name, said)


def check_compiler(device: torch.device, *, needed: bool) -> list[Finding]:
    """Whether ``torch.compile`` works; ``needed``: a cell of the suite must be compiled."""
    with _own_cache():
        fault = compiler_fault(device)
    if fault is None:
        return [Finding("ok", "compiler", f"torch.compile works on {device}")]
    todo = "install a C++ compiler (Debian: apt-get install g++); until then cells are not compiled"
    return [Finding("fault" if needed else "warning", "compiler", f"torch.compile fails: {fault}", todo)]


@contextmanager
def _own_cache() -> Iterator[None]:
    """Nothing that is compiled inside the block stays on the disk."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="regbench-doctor-", ignore_cleanup_errors=True) as cache:
        os.environ.update({name: str(Path(cache) / name) for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def check_plugins(registry: Registry) -> list[Finding]:
    """Plugins that could not be loaded."""
    found = [
        Finding("warning", "plugins", f"{broken.origin}: {broken.reason}", "regbench plugins --traceback")
        for broken in registry.broken
    ]
    if found:
        return found
    kinds = ("regularizers", "datasets", "metrics", "figures")
    counts = ", ".join(f"{len(getattr(registry, kind))} {kind}" for kind in kinds)
    return [Finding("ok", "plugins", f"none is broken; {counts.replace('datasets', 'data sets')}")]


def check_engines(registry: Registry, wish: Placement) -> list[Finding]:
    """Whether each engine could be used here; one that was not asked for is no fault."""
    found = []
    for name, plugin in registry.engines.items():
        asked = name == wish.engine
        try:
            options = wish.engine_class(registry)[1] if asked else plugin.cls.Options()
            problems = plugin.cls.check(options)
        except Exception as error:  # a plugin's code
            problems = [f"its check failed: {type(error).__name__}: {error}"]
        if not problems:
            found.append(Finding("ok", f"engine {name}", "can be used"))
        for problem in problems:
            found.append(Finding("fault" if asked else "note", f"engine {name}", problem))
    return found


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
