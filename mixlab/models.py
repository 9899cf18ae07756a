"""Models by name, and the arguments that all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, cast

import torch

from mixlab.architectures import ARCHITECTURES, published
from mixlab.baselines import Baseline, baseline_info, is_baseline, list_baselines, make_baseline
from mixlab.embeddings import GlobalTokens, choose_embeddings
from mixlab.errors import Quoted, expected, nearest, unknown
from mixlab.metaformer import MetaFormer
from mixlab.metaformer.config import MetaFormerConfig, StageConfig
from mixlab.mixers import MIXERS
from mixlab.registry import Part
from mixlab.weights import check_init, check_source, resolved, started
from mixlab.weights.sources import OFFICIAL

Parts = tuple[Part, ...]
Inits = tuple[str, ...]

#: What decides on a model's mixers.
WEIGHTS_OF = ("token_mixer", "kernel_size", "stages", "letters")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model as a user asks for it: a published configuration, and what is changed in it."""

    name: str = "metaformer_nano"
    """A name of ``mixlab list models``, or ``timm:NAME`` for any model of timm."""
    token_mixer: Any = None
    """The mixer under study (T): a name, a mapping with its options, or a list cycled over a stage's blocks."""
    kernel_size: Any = None
    """Window of the mixer under study: odd, an int or one per axis."""
    stages: str | None = None
    """One letter a stage: T takes the mixer under study, P keeps pooling with k=3; default all T."""
    letters: dict[str, Any] = field(default_factory=dict)
    """More letters for ``stages``: letter to mixer."""
    embedding: Any = None
    """Patch embedding of all stages, or a list of one a stage: conv, overlap, non_overlap, none, coord_mlp, ...; None
    for the published ones. Strides stay."""
    stem_stride: Any = None
    """Stride of the stem (an int or one per axis), e.g. 2 for small images and dense tasks; None for the published."""
    position: Any = None
    """Position added before the first block of the stages of the mixer under study: learned, conv, ...; None for the
    published ones."""
    drop_path_rate: float | None = None
    """Stochastic depth; None for the published rate."""
    drop_path_schedule: str = "linear"
    """``linear`` or ``constant`` over the blocks."""
    layer_scale: float | None = None
    """Start of LayerScale; None for the published value."""
    mlp_ratio: float | None = None
    """Hidden width of the MLP over its width; None for the published ratio."""
    dropout: float = 0.0
    """Dropout in the channel mixers and before the classifier."""
    image_size: Any = None
    """Size of the images; needed by parts that live on a grid only."""
    out_norm: Any = None
    """Norm on each returned map of a model with ``features_only``, e.g. ``group_norm``."""
    global_tokens: GlobalTokens | None = None
    """Class token and registers, and where they start."""
    class_token: bool = False
    """Short for ``global_tokens`` with a class token, which the model classifies from."""
    registers: int = 0
    """Short for ``global_tokens`` with so many registers: global tokens that are not classified from."""
    pretrained: str | None = None
    """Weights to start from: a checkpoint file, an https:// URL, timm:NAME, or official for the published ones."""
    weights_of: dict[str, Any] = field(default_factory=dict)
    """For weights of a training of your own: its `token_mixer`, `kernel_size`, `stages` and `letters`, where they were
    not the published ones. Mixers that are not exchanged are then these."""
    init: str = "random"
    """How exchanged mixers start: random, warm (from the weights of the mixers that they replace, those of the
    published model or of `weights_of`), or pooling (acting as pooling). A mixer's mapping may have its own `init`."""
    inflate: str | None = None
    """How 2D weights become 3D: centre (in the middle slice) or mean (over the slices); null for weights of the
    model's own dimension."""

    def __post_init__(self) -> None:
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise expected("model dropout", "a probability in [0, 1)", self.dropout, "0.1")
        if self.mlp_ratio is not None and not (isinstance(self.mlp_ratio, int | float) and self.mlp_ratio > 0):
            raise expected("model mlp_ratio", "a positive number", self.mlp_ratio, "4")
        check_init(self.init, "model init")
        for key in self.weights_of:
            if key not in WEIGHTS_OF:
                raise unknown("key in model weights_of", str(key), WEIGHTS_OF)
        if self.weights_of and self.pretrained is None:
            raise expected("model weights_of", "weights beside it", None, "pretrained='best.ckpt'")
        if self.global_tokens is not None and (self.class_token or self.registers):
            got = Quoted("global_tokens and beside it class_token or registers")
            raise expected("model", "the tokens in one place", got, "class_token and registers within global_tokens")
        self._tokens()

    def configuration(
        self, *, num_classes: int = 1000, in_channels: int = 3, spatial_dims: int = 2, features_only: bool = False
    ) -> MetaFormerConfig:
        """The complete configuration; raises a UserError for anything that does not fit."""
        base = self._base()
        mixers = [mixers for mixers, _ in self._mixers(base)]
        embeddings = choose_embeddings(self.embedding, self.stem_stride, [s.embedding for s in base.stages])
        parts = zip(base.stages, mixers, embeddings, self._pattern(base), strict=True)
        stages = tuple(self._stage(stage, m, e, studied=letter == "T") for stage, m, e, letter in parts)
        head = base.head.with_options(dropout=self.dropout) if self.dropout else base.head
        size = tuple(self.image_size) if isinstance(self.image_size, Sequence) else self.image_size
        return dataclasses.replace(
            base,
            architecture=self.name,
            stages=stages,
            head=head,
            num_classes=num_classes,
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            features_only=features_only,
            image_size=base.image_size if size is None else size,
            drop_path_rate=base.drop_path_rate if self.drop_path_rate is None else self.drop_path_rate,
            drop_path_schedule=self.drop_path_schedule,
            global_tokens=self._tokens() or base.global_tokens,
        )

    def build(
        self, num_classes: int, in_channels: int, spatial_dims: int = 2, *, features_only: bool = False
    ) -> MetaFormer:
        """The model, with fresh weights. A baseline has the interface of a MetaFormer, but for its stages."""
        if is_baseline(self.name):
            return cast(MetaFormer, self._baseline(num_classes, in_channels, spatial_dims, features_only))
        return MetaFormer(
            self.configuration(
                num_classes=num_classes, in_channels=in_channels, spatial_dims=spatial_dims, features_only=features_only
            )
        )

    def create(
        self, num_classes: int, in_channels: int, spatial_dims: int = 2, *, features_only: bool = False
    ) -> MetaFormer:
        """The model with the weights that ``pretrained``, ``init`` and ``inflate`` ask for; what became of each is in
        ``model.events``.

        Raises:
            UserError: weights that cannot be read or do not fit, or a start that there is no rule for.
        """
        if is_baseline(self.name):
            baseline = self._baseline(num_classes, in_channels, spatial_dims, features_only)
            baseline.start(self.pretrained)
            return cast(MetaFormer, baseline)
        target = self.configuration(
            num_classes=num_classes, in_channels=in_channels, spatial_dims=spatial_dims, features_only=features_only
        )
        base = self._base()
        if self.pretrained is not None:
            check_source(self.pretrained, self.name)
        inits = [inits for _, inits in self._mixers(base)]
        former, own = [s.mixers for s in base.stages], bool(self.weights_of)
        return started(target, former, inits, pretrained=self.pretrained, how=self.inflate, trained=own)

    @property
    def has_start(self) -> bool:
        """Whether :meth:`create` does more than :meth:`build`: loads weights, or lets mixers start from others."""
        if is_baseline(self.name):
            return self.pretrained is not None
        base = self._base()
        starts = {init for _, inits in self._mixers(base) for init in inits}
        return self.pretrained is not None or self.inflate is not None or starts != {"random"}

    def _base(self) -> MetaFormerConfig:
        """The published configuration, or with the mixers of ``weights_of``."""
        if is_baseline(self.name):
            raise expected("configuration", "a MetaFormer", self.name, "create_model, which builds baselines too")
        if self.name not in ARCHITECTURES:
            raise unknown("model", self.name, list_models())
        base = ARCHITECTURES[self.name]()
        assert isinstance(base, MetaFormerConfig)
        if not self.weights_of:
            return base
        mixers = ModelConfig(name=self.name, **self.weights_of)._mixers(base)
        stages = (dataclasses.replace(s, mixers=m) for s, (m, _) in zip(base.stages, mixers, strict=True))
        return dataclasses.replace(base, stages=tuple(stages))

    def _baseline(self, num_classes: int, in_channels: int, spatial_dims: int, features_only: bool) -> Baseline:
        """A network that is no MetaFormer, with fresh weights."""
        default = ModelConfig()
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {k: v for k, v in named.items() if v != getattr(default, k) and k not in ("name", "pretrained")}
        return make_baseline(
            self.name,
            num_classes=num_classes,
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            features_only=features_only,
            options=changed,
        )

    def _mixers(self, base: MetaFormerConfig) -> list[tuple[Parts, Inits]]:
        """Token mixers of every stage and how they start, both cycled over its blocks."""
        if self.token_mixer is None and self.stages is None and self.kernel_size is None:
            return [(s.mixers, ("random",)) for s in base.stages]
        table: dict[str, Parts] = {"P": (Part("pooling", {"kernel_size": 3}),)}
        table |= {letter: _parts(value) for letter, value in self.letters.items()}
        pattern = self._pattern(base)
        if len(pattern) != len(base.stages) or not set(pattern) <= {*table, "T"}:
            want = f"{len(base.stages)} letters out of {', '.join(sorted({*table, 'T'}))}"
            raise expected(
                "stages", want, pattern, f"'{'P' * (len(base.stages) // 2)}{'T' * -(-len(base.stages) // 2)}'"
            )
        return [
            (table[letter], ("random",)) if letter in table else self._studied(stage)
            for letter, stage in zip(pattern, base.stages, strict=True)
        ]

    def _pattern(self, base: MetaFormerConfig) -> str:
        return self.stages or "T" * len(base.stages)

    def _studied(self, stage: StageConfig) -> tuple[Parts, Inits]:
        """The mixer under study, or the stage's own where none is named, with ``kernel_size`` and what its start needs
        in its options; and how it starts."""
        given = stage.mixers if self.token_mixer is None else _parts(self.token_mixer)
        parts, inits = zip(*(self._start_of(part) for part in given), strict=True)
        for part in parts if self.kernel_size is not None else ():
            if "kernel_size" not in MIXERS.options(part.name):
                windowed = [m for m in MIXERS if "kernel_size" in MIXERS.options(m)]
                raise expected(
                    "kernel_size", f"a mixer with a window ({', '.join(windowed)})", part.name, "without kernel_size"
                )
        if self.kernel_size is not None:
            parts = tuple(p.with_options(kernel_size=self.kernel_size) for p in parts)
        if set(inits) == {"random"}:
            return parts, inits
        return resolved(stage.mixers, parts, stage.depth, inits), inits

    def _tokens(self) -> GlobalTokens | None:
        if self.class_token or self.registers:
            return GlobalTokens(class_token=self.class_token, registers=self.registers)
        return self.global_tokens

    def _start_of(self, part: Part) -> tuple[Part, str]:
        """A mixer without its ``init``, which is no option of the mixer but of how it starts."""
        if "init" not in part.options or "init" in MIXERS.options(part.name):
            return part, self.init
        options = {k: v for k, v in part.options.items() if k != "init"}
        return Part(part.name, options), check_init(part.options["init"], f"init of {part.name}")

    def _stage(self, stage: StageConfig, mixers: tuple[Part, ...], embedding: Part, *, studied: bool) -> StageConfig:
        options: dict[str, Any] = {}
        if self.mlp_ratio is not None:
            options["ratio"] = self.mlp_ratio
        if self.dropout:
            options["dropout"] = self.dropout
        return dataclasses.replace(
            stage,
            embedding=embedding,
            position=Part.of(self.position) if studied and self.position is not None else stage.position,
            mixers=mixers,
            channel_mixers=tuple(c.with_options(**options) for c in stage.channel_mixers),
            layer_scale=stage.layer_scale if self.layer_scale is None else self.layer_scale,
            out_norm=stage.out_norm if self.out_norm is None else Part.of(self.out_norm),
        )


def _parts(value: Any) -> tuple[Part, ...]:
    if isinstance(value, str | Mapping | Part):
        return (Part.of(value),)
    if isinstance(value, Sequence) and value:
        return tuple(Part.of(v) for v in value)
    raise expected("token_mixer", "a name, a mapping with 'name' and options, or a list of them", value)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    spatial_dims: int = 2,
    features_only: bool = False,
    pretrained: str | PathLike[str] | bool | None = None,
    **options: Any,
) -> MetaFormer:
    """Build a model by its published name, with the token mixer of your choice.

    Args:
        name: one of :func:`list_models`, or ``timm:NAME`` for any model of timm. Baselines (``resnet18``, ...) take
            few of the options, and no other token mixer.
        num_classes: logits; 0 for pooled features ``(B, C)``.
        in_channels: channels of the image.
        spatial_dims: 1, 2 or 3; images are ``(B, in_channels, *spatial)``, axes in ``(D, H, W)`` order.
        features_only: return the maps of all stages, at strides 4, 8, 16, 32 (see ``model.feature_info``).
        pretrained: weights to start from: a checkpoint file with official names or our own, an ``https://`` URL,
            ``timm:NAME`` for weights of timm's hub, True or ``official`` for the published ones where timm hosts them.
            A classifier for another number of classes, a stem for other channels and a token mixer of another kind
            stay fresh or are adapted, and ``model.events`` says so; anything else that does not fit raises.
        options: fields of :class:`ModelConfig`: ``token_mixer``, ``kernel_size``, ``stages="PPTT"``,
            ``drop_path_rate``, ``image_size``, ``init="pooling"`` or ``"warm"`` for how exchanged mixers start,
            ``inflate="centre"`` or ``"mean"`` for 2D weights in a 3D model, ...

    Raises:
        UserError: an unknown name or option (with the nearest), a kernel that is even, a head size that does not divide
            the width.

    Example:
        >>> model = create_model("metaformer_s12", token_mixer="local_attention", kernel_size=5, stages="PPTT")
    """
    known = {f.name for f in dataclasses.fields(ModelConfig)} - {"name"}
    for option in options:
        if option not in known:
            close = nearest(option, known)
            raise expected(
                "create_model", "a known option", option, repr(close[0]) if close else ", ".join(sorted(known))
            )
    if isinstance(pretrained, bool):
        pretrained = OFFICIAL if pretrained else None
    source = None if pretrained is None else fspath(pretrained)
    config = ModelConfig(name=name, pretrained=source, **options)
    return config.create(num_classes, in_channels, spatial_dims, features_only=features_only)


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return sorted([*ARCHITECTURES, *list_baselines()])


def model_info(name: str) -> dict[str, Any]:
    """What a model has and costs, beside what was published of it.

    Returns:
        ``parameters`` and ``macs`` (needed, for one image of ``image_size``), counted from the parts' formulas; of a
        model that was published also ``published_parameters`` (millions), ``published_macs`` (thousand millions),
        ``published_top1`` (per cent), ``paper``, ``repository`` and ``note``, each None where nothing is known. A
        baseline has no ``mixers``; without the package that it needs, ``parameters`` and ``macs`` are None.
    """
    if is_baseline(name):
        return baseline_info(name)
    said = published(name)
    with torch.device("meta"):  # no memory, no random numbers
        model = create_model(name)
    size = said.image_size if said else 224
    cost = model.cost((size,) * 2)
    stages = model.config.stages
    return {
        "name": name,
        "depths": [s.depth for s in stages],
        "widths": [s.width for s in stages],
        "mixers": [" ".join(dict.fromkeys(p.name for p in s.mixers)) for s in stages],
        "image_size": size,
        "parameters": cost.parameters,
        "macs": cost.macs_needed,
        "published_parameters": said.parameters if said else None,
        "published_macs": said.macs if said else None,
        "published_top1": said.top1 if said else None,
        "paper": said.paper if said else None,
        "repository": said.repository if said else None,
        "note": said.note if said else None,
    }
