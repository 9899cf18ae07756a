"""A network of your own beside MetaFormers: `--import examples/my_baseline.py`, then `baselines: [two_layers]`."""

from torch import nn

from mixlab.baselines import Baseline, BaselineConfig, register_baseline
from mixlab.ops.convs import CONVS


@register_baseline("two_layers")
class TwoLayers(Baseline):
    """Two strided convolutions, the mean over positions, a linear layer."""

    takes = frozenset({"image_size"})  # options of the model's configuration that have a meaning here

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        conv = CONVS[config.spatial_dims]
        self.body = nn.Sequential(conv(config.in_channels, 16, 4, 4), nn.GELU(), conv(16, 32, 2, 2), nn.GELU())
        self.head = nn.Linear(32, config.num_classes)  # what a linear probe trains

    def forward(self, x):
        return self.head(self.body(x).flatten(2).mean(2))
