"""Where and how a run is computed: device, precision, threads, loader workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mixlab.errors import expected, unknown

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
PRECISIONS: Final = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Resolved choices of one run; of these only ``precision`` changes its result by design, and enters its hash."""

    device: str = "cpu"
    precision: str = "32-true"
    threads: int = 1
    workers: int = 0


def choose_device(name: str = "auto") -> str:
    """The device to train on: the one named, or with ``auto`` a GPU when there is one.

    Raises:
        UserError: the name is unknown or the device is not there.
    """
    import torch

    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise expected("device", "a device that torch finds on this machine", name, "--device auto")
    return name


def choose_precision(name: str, device: str) -> str:
    """The precision named, or with ``auto`` bfloat16 on a CUDA device that has it and float32 elsewhere.

    A CPU may emulate bfloat16 slowly and other devices lack operations in it, so they get it on request only.

    Raises:
        UserError: the name is unknown, holds the weights in half precision, or needs another device.
    """
    import torch

    if name in ("bf16-true", "16-true"):
        raise expected("precision", "weights in float32, as images are normalised in it", name, "bf16-mixed")
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "16-mixed" and device != "cuda":
        raise expected("precision", f"one that {device} has", name, "32-true, or --device cuda")
    if name != "auto":
        return name
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
