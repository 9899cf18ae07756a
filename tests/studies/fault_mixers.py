"""Mixers that fail in chosen ways while they train; tests import this file as a user would (``--import``)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

import mixlab
from mixlab.cost import Cost, Size


class Faulty(mixlab.Mixer):
    """The identity, with one parameter so that something can be trained."""

    def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.fail(x)
        return x * self.scale

    def fail(self, x: torch.Tensor) -> None:
        """What happens in training."""

    def cost(self, size: Size) -> Cost:
        return Cost(parameters=1)


@mixlab.register_mixer("test_crash")
class Crash(Faulty):
    """Ends the process as a fault in C code does."""

    def fail(self, x: torch.Tensor) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


@mixlab.register_mixer("test_error")
class Error(Faulty):
    """Raises."""

    def fail(self, x: torch.Tensor) -> None:
        raise ValueError("the mixer's own error")


@mixlab.register_mixer("test_diverge")
class Diverge(Faulty):
    """Gives infinite values after some forward passes."""

    def __init__(self, dim: int, *, spatial_dims: int = 2, after: int = 3) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.left = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        return x * self.scale * (torch.inf if self.training and self.left < 0 else 1.0)


@mixlab.register_mixer("test_no_cost")
class NoCost(Faulty):
    """Does not state its cost."""

    cost = mixlab.Mixer.cost


@mixlab.register_mixer("test_slow")
class Slow(Faulty):
    """Takes its time."""

    def fail(self, x: torch.Tensor) -> None:
        time.sleep(0.05)


@mixlab.register_mixer("test_kill")
class Kill(Faulty):
    """Kills its process with ``kill -9``, once, in the forward pass whose number the file ``marker`` holds."""

    def __init__(self, dim: int, *, spatial_dims: int = 2, marker: str) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.marker = Path(marker)
        self.passes = 0

    def fail(self, x: torch.Tensor) -> None:
        self.passes += 1
        if self.marker.exists() and self.passes == int(self.marker.read_text()):
            self.marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
