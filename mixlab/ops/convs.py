"""The one table of convolution classes by number of spatial axes."""

from __future__ import annotations

from typing import Any

from torch import nn

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
