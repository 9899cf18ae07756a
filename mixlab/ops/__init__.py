"""The hot operations under the mixers, free of parameters."""

from mixlab.ops.local_attention import local_attention
from mixlab.ops.pointwise import Pointwise, pointwise

__all__ = ["Pointwise", "local_attention", "pointwise"]
