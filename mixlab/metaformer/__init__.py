"""MetaFormer: the one frame in which token mixers are exchanged. It knows nothing about any one mixer.

A block is ``x <- r1 x + DropPath(l1 mixer(norm1(x)))``, then ``x <- r2 x + DropPath(l2 channel_mixer(norm2(x)))``; a
stage is a patch embedding and ``depth`` blocks at one resolution; a backbone is stages and a head. Source: Yu et al.
(arXiv:2111.11418), with the scales of arXiv:2210.13452. Maps are ``(B, C, *spatial)`` with one to three spatial axes in
``(D, H, W)`` order.
"""

from mixlab.metaformer.backbone import MetaFormer
from mixlab.metaformer.block import Block
from mixlab.metaformer.config import MetaFormerConfig, StageConfig
from mixlab.metaformer.stage import Stage

__all__ = ["Block", "MetaFormer", "MetaFormerConfig", "Stage", "StageConfig"]
