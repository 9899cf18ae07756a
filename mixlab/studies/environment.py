"""What a run was computed with: versions, machine, choices."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from typing import Any

from mixlab.studies.run_folder import now
from mixlab.training.machine import Machine

# What can change a number; the rest of an installation does not belong in a record of a result.
PACKAGES = (
    "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy", "scipy", "scikit-learn", "pandas", "pillow",
    "medmnist", "nilearn", "monai", "nibabel", "pydicom",
)  # fmt: skip


def describe_environment(machine: Machine) -> dict[str, Any]:
    """The content of ``environment.json``."""
    packages = package_versions()
    return {
        "mixlab": packages.get("mixlab"),
        "python": platform.python_version(),
        "torch": packages.get("torch"),
        "lightning": packages.get("lightning"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": cores(),
        "device": machine.device,
        "device_name": device_name(machine.device),
        "threads": machine.threads,
        "workers": machine.workers,
        "precision": machine.precision,
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "started": now(),
        "packages": packages,
    }


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages whose code takes part in a result."""
    found = {}
    for name in ("mixlab", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: str) -> str:
    """The name of the GPU, or of the CPU."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return cpu_name()


@cache
def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb(device: str) -> float:
    """Largest memory of this process in MiB: on a CUDA device what was allocated there, else resident memory."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such count
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
