"""A bounded cache for tensors that depend on sizes only (masks, offsets, decay), never on parameters.

The cache belongs to the function, not to a module: it is never copied, pickled or saved. Values are made outside
inference mode, so that a model evaluated first can be trained afterwards. While a graph is traced (``torch.compile``,
``torch.export``) or run on fake tensors nothing is cached: the values become part of the graph and follow dynamic
sizes.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


def size_cached(max_entries: int = 32) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator for ``build(*sizes, device=...) -> Tensor`` with hashable arguments; the oldest entry is dropped
    first."""

    def decorate(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
        entries: OrderedDict[Hashable, Tensor] = OrderedDict()

        @functools.wraps(build)
        def cached(*args: Hashable, **kwargs: Hashable) -> Tensor:
            if torch.compiler.is_compiling():
                return build(*args, **kwargs)
            key = (args, tuple(sorted(kwargs.items())))
            if key not in entries:
                with torch.inference_mode(False), torch.no_grad():
                    value = build(*args, **kwargs)
                if type(value) is not Tensor:  # a fake or traced tensor must not outlive its mode
                    return value
                entries[key] = value
                while len(entries) > max_entries:
                    entries.popitem(last=False)
            entries.move_to_end(key)
            return entries[key]

        cached.entries = entries  # type: ignore[attr-defined]  # for tests and for freeing memory
        return cached

    return decorate
