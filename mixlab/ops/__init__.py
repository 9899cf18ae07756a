"""The hot operations under the mixers, free of parameters.

* :func:`local_attention`: ``out_i = sum_j softmax_j(scale q_i · k_j + bias[j - i]) v_j`` over a window around each
  position, with extra keys in the same softmax.
* :func:`local_aggregate`: ``y_i = sum_j w_ij v_j`` over the same window, with given weights.
* :func:`pointwise`: ``y_i = W x_i + b``, a 1x1 convolution.
"""

from mixlab.ops.local_attention import local_aggregate, local_attention
from mixlab.ops.local_attention_choice import Choice
from mixlab.ops.pointwise import Pointwise, pointwise

__all__ = ["Choice", "Pointwise", "local_aggregate", "local_attention", "pointwise"]
