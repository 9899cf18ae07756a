"""Triton kernels of local attention; imported only where Triton is, by :mod:`mixlab.ops.local_attention_triton`."""
