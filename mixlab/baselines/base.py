"""The contract of baselines: networks that are no MetaFormers, beside them in a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixlab.architectures import Published
from mixlab.cost import Cost, Size, macs
from mixlab.errors import Quoted, UserError, expected
from mixlab.ops.windows import check_map, check_spatial_dims
from mixlab.registry import Registry


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """What a baseline was built from."""

    architecture: str
    """Its name, such as ``resnet18`` or ``timm:convnext_tiny``."""
    num_classes: int = 1000
    """Logits; 0 for pooled features."""
    in_channels: int = 3
    """Channels of the image."""
    spatial_dims: int = 2
    """2 or 3."""
    features_only: bool = False
    """Return the maps of all stages instead of logits."""
    image_size: int | tuple[int, ...] | None = None
    """Size of the images, for networks that are built for one size."""
    kernel_size: Any = None
    """Window of the network's convolutions, where it has an option for that."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    drop_path_rate: float | None = None
    """Stochastic depth; None for the network's own rate."""
    inflate: str | None = None
    """How 2D weights become 3D: ``centre`` or ``mean``; None for weights of the network's own dimension."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that only this network has."""
    stages: ClassVar[tuple[()]] = ()
    """No stages of blocks, in which token mixers could be exchanged."""

    def __post_init__(self) -> None:
        check_spatial_dims(self.spatial_dims, f"baseline {self.architecture}")
        for name, least in (("num_classes", 0), ("in_channels", 1)):
            if getattr(self, name) < least:
                raise expected(f"baseline {name}", f"at least {least}", getattr(self, name))


class Baseline(nn.Module):
    """A network with the interface of a MetaFormer, but for its stages: ``(B, in_channels, *spatial)`` to logits
    ``(B, num_classes)``, or to a list of maps.

    Attributes:
        config: everything the model was built from.
        head: the classifier, which a linear probe trains; None with ``features_only``.
        feature_info: per map ``num_chs``, ``reduction`` (stride per axis) and ``module``; empty where unknown.
        events: what the user should know of it, such as the weights that were loaded.
        new_parameters: names of entries that loading left without weights; empty where nothing was loaded.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    """Fields of ``ModelConfig`` that this baseline has a meaning for."""
    needs_weights: ClassVar[str] = ""
    """What a file of weights must hold, for a baseline that means nothing without one."""
    hub_name: str = ""
    """Name of its published weights in timm's hub; empty for none."""
    file_prefix: ClassVar[str] = ""
    """What stands before the names of a file of weights in the state dict."""
    published: ClassVar[Published | None] = None
    """What its authors say of it."""
    dense: ClassVar[bool] = False
    """It has a decoder of its own: logits ``(B, num_classes, *spatial)``."""
    listed_classes: ClassVar[int] = 1000
    """Classes of the model whose parameters and MACs lists show."""
    head: nn.Module | None

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_info: list[dict[str, Any]] = []
        self.events: list[dict[str, str]] = []
        self.new_parameters: set[str] = set()

    def load(self, source: str | PathLike[str]) -> Any:
        """Load weights from a file, an ``https://`` URL, or ``official`` for those of timm's hub.

        Returns a :class:`mixlab.weights.LoadReport` and notes it in ``events``.
        """
        raise NotImplementedError

    def start(self, source: str | PathLike[str] | None) -> None:
        """Load the weights that a model starts from.

        Raises:
            UserError: there are none, and the baseline means nothing without.
        """
        if source is None and self.config.inflate is not None:
            raise expected("model inflate", "weights to inflate", None, "pretrained: FILE")
        if source is not None:
            self.load(source)
        elif self.needs_weights:
            name = self.config.architecture
            raise expected(f"model {name}", "a file of weights", None, f"pretrained: {self.needs_weights}")

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Maps of the stages, first to last."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise a UserError unless ``x`` is ``(B, in_channels, *spatial)``."""
        check_map(x.shape, self.config.in_channels, self.config.spatial_dims, f"model {self.config.architecture}")

    def stage_sizes(self, size: Size) -> list[Size]:
        """No sizes of stages; what a network cannot take it says itself."""
        return []

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that optimisers should not shrink, beside vectors."""
        return set()

    def fuse(self) -> Baseline:
        """Nothing here has a training form of its own."""
        return self

    def cost(self, size: Size) -> Cost:
        """Parameters, and MACs as torch's counter sees them; other operations and activations are not counted.

        Raises:
            NotImplementedError: the network cannot be run without memory for its tensors.
        """
        return counted(self, (self.config.in_channels, *size))


BASELINES: Registry[Baseline] = Registry("model", "mixlab.baselines")
"""Classes that take a :class:`BaselineConfig`, by name; names such as ``timm:convnext_tiny`` by what stands before the
colon."""
register_baseline = BASELINES.register


def counted(model: nn.Module, shape: tuple[int, ...]) -> Cost:
    """The cost of one image of ``shape`` by ``torch.utils.flop_counter``, on a copy without memory."""
    import copy

    parameters = sum(p.numel() for p in model.parameters())
    twin = copy.deepcopy(model).to("meta").eval()
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            twin(torch.empty(1, *shape, device="meta"))
    except (RuntimeError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise NotImplementedError(f"{type(model).__name__}: its MACs are not counted ({reason})") from error
    return macs(counter.get_total_flops() // 2, parameters=parameters)


def is_baseline(name: str) -> bool:
    """Whether a model's name is that of a baseline."""
    return name.partition(":")[0] in BASELINES


def has_decoder(name: str) -> bool:
    """Whether a model's name is that of a baseline that gives logits at every pixel."""
    return is_baseline(name) and bool(getattr(BASELINES[name.partition(":")[0]], "dense", False))


def list_baselines() -> list[str]:
    """Names of the baselines that can be listed; ``timm:NAME`` takes any name that timm has."""
    return [name for name in BASELINES if not getattr(BASELINES[name], "family", False)]


def make_baseline(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    spatial_dims: int,
    features_only: bool = False,
    options: Mapping[str, Any],
) -> Baseline:
    """Build a baseline, with fresh weights.

    Args:
        name: a name of the registry, or ``FAMILY:NAME``.
        num_classes, in_channels, spatial_dims, features_only: as of any model.
        options: what the user changed in the model's configuration.

    Raises:
        UserError: an option that only MetaFormers have, such as another token mixer.
    """
    family = name.partition(":")[0]
    entry: Any = BASELINES[family]
    takes: frozenset[str] = entry.takes
    foreign = [option for option in options if option not in takes]
    if foreign:
        got = Quoted(", ".join(f"{o}={options[o]!r}" for o in foreign))
        own = f"its own options ({', '.join(sorted(takes))})" if takes else "no options"
        hint = "a MetaFormer (`mixlab list models`) to exchange token mixers and the like"
        raise expected(f"model {name}", f"{own}: it has no blocks whose parts could be exchanged", got, hint)
    if (":" in name) != bool(getattr(entry, "family", False)):
        raise expected(f"model {family!r}", f"the form {getattr(entry, 'family', '') or family}", name)
    known = {f.name for f in dataclasses.fields(BaselineConfig)}
    config = BaselineConfig(
        architecture=name,
        num_classes=num_classes,
        in_channels=in_channels,
        spatial_dims=spatial_dims,
        features_only=features_only,
        **{k: v for k, v in options.items() if k in known},
    )
    return entry(config)


def baseline_info(name: str) -> dict[str, Any]:
    """What a baseline has and costs, by the keys of ``mixlab.models.model_info``; no cost where a package lacks."""
    said: Published | None = BASELINES[name.partition(":")[0]].published  # type: ignore[attr-defined]
    info: dict[str, Any] = {
        "name": name,
        "depths": [],
        "widths": [],
        "mixers": [],
        "image_size": said.image_size if said else 224,
        "parameters": None,
        "macs": None,
        "published_parameters": said.parameters if said else None,
        "published_macs": said.macs if said else None,
        "published_top1": said.top1 if said else None,
        "paper": said.paper if said else None,
        "repository": said.repository if said else None,
        "note": said.note if said else None,
    }
    try:
        with torch.device("meta"):  # no memory, no random numbers
            classes = getattr(BASELINES[name.partition(":")[0]], "listed_classes", 1000)
            model = make_baseline(name, num_classes=classes, in_channels=3, spatial_dims=2, options={})
    except UserError:
        return info
    cost = model.cost((info["image_size"],) * 2)
    widths = [i["num_chs"] for i in model.feature_info]
    return {**info, "widths": widths, "parameters": cost.parameters, "macs": cost.macs_needed}
