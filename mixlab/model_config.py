"""The arguments that all models share, and the models that they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mixlab.architectures import ARCHITECTURES
from mixlab.baselines import Baseline, has_decoder, is_baseline, list_baselines, make_baseline
from mixlab.dense import DenseModel
from mixlab.embeddings import GlobalTokens, choose_embeddings
from mixlab.errors import Quoted, expected, unknown
from mixlab.heads import DECODERS
from mixlab.heads.decoder import maps_read
from mixlab.metaformer import MetaFormer
from mixlab.metaformer.config import MetaFormerConfig, StageConfig
from mixlab.mixers import MIXERS
from mixlab.registry import Part
from mixlab.weights import check_init, check_source, resolved, started

Parts = tuple[Part, ...]
Inits = tuple[str, ...]

#: What decides on a model's mixers.
WEIGHTS_OF = ("token_mixer", "kernel_size", "stages", "letters")
#: Norm of each map that a decoder reads, where neither the user nor the publication names one.
DENSE_NORM = "group_norm"


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
    """Norm on each returned map of a model with ``features_only`` or a decoder, e.g. ``group_norm``, or a list of one a
    stage; ``none`` for no norm. None for the published one; with a decoder ``group_norm`` where none was published."""
    decoder: Any = None
    """Dense decoder in place of the head: segformer, fcn, unet, or a mapping with its options; None to classify."""
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
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a baseline that has its own, such as ``channels`` of ``unet``."""

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
        tokens = self._tokens()
        if self.decoder is not None:
            if Part.of(self.decoder).name not in DECODERS:
                raise unknown("decoder", Part.of(self.decoder).name, DECODERS)
            if tokens is not None and tokens.class_token:
                hint = "registers, which decoders go without, or no decoder"
                raise expected("model decoder", "no class token: decoders read maps alone", Quoted("class_token"), hint)

    @property
    def is_dense(self) -> bool:
        """Whether the model gives logits at every pixel."""
        return self.decoder is not None or has_decoder(self.name)

    def configuration(
        self, *, num_classes: int = 1000, in_channels: int = 3, spatial_dims: int = 2, features_only: bool = False
    ) -> MetaFormerConfig:
        """The complete configuration, of the encoder where there is a decoder; raises a UserError for anything that
        does not fit."""
        base = self._base()
        mixers = [mixers for mixers, _ in self._mixers(base)]
        embeddings = choose_embeddings(self.embedding, self.stem_stride, [s.embedding for s in base.stages])
        parts = zip(base.stages, mixers, embeddings, self._out_norms(base), self._pattern(base), strict=True)
        stages = tuple(self._stage(stage, m, e, n, studied=letter == "T") for stage, m, e, n, letter in parts)
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
        """The model, with fresh weights. A baseline has the interface of a MetaFormer, but for its stages, and a dense
        model is a :class:`mixlab.dense.DenseModel`."""
        if self.decoder is not None:
            return self._dense(num_classes, in_channels, spatial_dims, features_only, start=False)
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
        if self.decoder is not None:
            return self._dense(num_classes, in_channels, spatial_dims, features_only, start=True)
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

    def _dense(self, classes: int, channels: int, dims: int, features_only: bool, *, start: bool) -> MetaFormer:
        """Encoder and decoder; ``start`` gives the encoder its weights."""
        part = Part.of(self.decoder)
        if has_decoder(self.name):
            want = "no decoder beside its own"
            raise expected(f"model {self.name}", want, part.to_plain(), "decoder: null, or a MetaFormer")
        if features_only:
            raise expected("model decoder", "logits to return", Quoted("features_only=True"), "no decoder, for maps")
        if self.dropout and "dropout" in DECODERS.options(part.name):
            part = Part(part.name, {"dropout": self.dropout, **part.options})
        encoder = dataclasses.replace(self, decoder=None)
        if not is_baseline(self.name):
            stages = self._base().stages
            read = maps_read(part, len(stages))
            asked = self._out_norms(self._base())
            if self.out_norm is None:
                asked = [norm or Part(DENSE_NORM) for norm in asked]
            # A norm of a map that nothing reads would be parameters that never learn.
            norms = [n.to_plain() if n is not None and i in read else "none" for i, n in enumerate(asked)]
            encoder = dataclasses.replace(encoder, out_norm=norms)
        make = encoder.create if start else encoder.build
        maps = make(classes, channels, dims, features_only=True)
        return cast(MetaFormer, DenseModel(maps, part, classes, has_weights=start and self.pretrained is not None))

    def _base(self) -> MetaFormerConfig:
        """The published configuration, or with the mixers of ``weights_of``."""
        if is_baseline(self.name):
            raise expected("configuration", "a MetaFormer", self.name, "create_model, which builds baselines too")
        if self.name not in ARCHITECTURES:
            raise unknown("model", self.name, [*ARCHITECTURES, *list_baselines()])
        if self.options:
            hint = "the fields of a model, such as token_mixer"
            raise expected("model options", f"none: {self.name} has no options of its own", self.options, hint)
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

    def _out_norms(self, base: MetaFormerConfig) -> list[Part | None]:
        """Norm of each stage's returned map."""
        if self.out_norm is None:
            return [s.out_norm for s in base.stages]
        several = isinstance(self.out_norm, Sequence) and not isinstance(self.out_norm, str)
        given = list(self.out_norm) if several else [self.out_norm] * len(base.stages)
        if len(given) != len(base.stages):
            raise expected("model out_norm", f"one norm, or {len(base.stages)} of them, one a stage", self.out_norm)
        return [None if norm == "none" else Part.of(norm) for norm in given]

    def _stage(
        self, stage: StageConfig, mixers: Parts, embedding: Part, out_norm: Part | None, *, studied: bool
    ) -> StageConfig:
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
            out_norm=out_norm,
        )


def _parts(value: Any) -> tuple[Part, ...]:
    if isinstance(value, str | Mapping | Part):
        return (Part.of(value),)
    if isinstance(value, Sequence) and value:
        return tuple(Part.of(v) for v in value)
    raise expected("token_mixer", "a name, a mapping with 'name' and options, or a list of them", value)
