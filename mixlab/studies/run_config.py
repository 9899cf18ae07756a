"""The configuration of one run, and the hash that names its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mixlab.data import DataConfig
from mixlab.errors import expected
from mixlab.models import ModelConfig
from mixlab.registry import Part
from mixlab.studies.configuration import build, changed_fields, to_plain
from mixlab.training.recipe import Recipe, expand_preset
from mixlab.weights.sources import identity

#: Raised whenever the same configuration would give other numbers: a changed default, another initialisation.
NUMERICS_VERSION: Final = 2
HASH_LENGTH: Final = 12
#: Fields of a run that its study fills in, for the report; they change no result and are not hashed.
OF_STUDIES: Final = ("variant", "recipes", "stand_ins")


@dataclass(kw_only=True, frozen=True)
class RunConfig:
    """Everything that one training is made of."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data set, its split and fold."""
    recipe: Recipe = field(default_factory=Recipe)
    """How it is trained."""
    seed: int = 0
    """Seed of weights, order, augmentation and dropout."""
    precision: str = "auto"
    """`32-true`, `bf16-mixed`, ...; `auto` is bfloat16 on a CUDA device that has it, else float32."""
    imports: list[str] = field(default_factory=list)
    """Python files to import first, for mixers of your own."""
    label: str = ""
    """What is trained, in the report; runs of one label differ in seed and fold only."""
    variant: str = ""
    """Name of the study's variant that this is, for the report."""
    recipes: str = "own"
    """Whether the recipe is the arm's own or the one that all share (matched), for the report."""
    stand_ins: list[str] = field(default_factory=list)
    """What was not at hand and replaced: scores mean nothing."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise expected("seed", "0 or more", self.seed, "0")

    @classmethod
    def of(cls, plain: Mapping[str, Any], where: str = "run") -> RunConfig:
        """A run from plain values; its recipe may name a preset, and its label is made where none is given."""
        values = dict(plain)
        if isinstance(values.get("data"), str):
            values["data"] = {"name": values["data"]}
        if "recipe" in values:
            values["recipe"] = expand_preset(values["recipe"])
        config = build(cls, values, where)
        return config if config.label else replace(config, label=run_label(config.model))

    @property
    def fold(self) -> int | None:
        """Fold of a cross-validation."""
        return self.data.fold

    def hashed(self, fingerprint: str) -> dict[str, Any]:
        """What changes the result and nothing else, fields at their default left out.

        Args:
            fingerprint: content hash of the data, its labels and its split.
        """
        content = {
            "model": hashed_model(self.model),
            "data": hashed_data(self.data),
            "recipe": changed_fields(self.recipe),
            "seed": self.seed,
            "fingerprint": fingerprint,
            "numerics_version": NUMERICS_VERSION,
        }
        if self.precision != "32-true":
            content["precision"] = self.precision
        if self.imports:
            content["imports"] = sorted(file_hash(Path(path)) for path in self.imports)
        return content

    def hash(self, fingerprint: str) -> str:
        """Hash of :meth:`hashed`, of 12 hexadecimal digits."""
        text = json.dumps(self.hashed(fingerprint), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]

    def to_plain(self, fingerprint: str) -> dict[str, Any]:
        """The content of ``config.yaml``: complete and resolved."""
        return {
            "label": self.label,
            "hash": self.hash(fingerprint),
            "numerics_version": NUMERICS_VERSION,
            "model": to_plain(self.model),
            "data": to_plain(self.data),
            "recipe": to_plain(self.recipe),
            "seed": self.seed,
            "fold": self.fold,
            "precision": self.precision,
            "imports": [{"file": Path(path).name, "sha256": file_hash(Path(path))} for path in self.imports],
            "variant": self.variant,
            "recipes": self.recipes,
            "stand_ins": self.stand_ins,
        }


def hashed_model(model: ModelConfig) -> dict[str, Any]:
    """The changed fields of a model; weights count by their content, wherever their file lies (those of a hub by their
    name)."""
    changed = changed_fields(model)
    if model.pretrained is not None:
        changed["pretrained"] = identity(model.pretrained)
    return changed


def hashed_data(data: DataConfig) -> dict[str, Any]:
    """The changed fields of a data configuration without places: ``folder:/my/images`` is ``folder`` everywhere."""
    changed = {k: v for k, v in changed_fields(data).items() if k not in data.LOCATION_FIELDS}
    name = _placeless(data.name)
    return changed if name == data.name else {**changed, "name": name}


def _placeless(name: str) -> str:
    """A data set's name without a path in it."""
    kind, _, argument = name.partition(":")
    if kind == "stand-in":
        return f"{kind}:{_placeless(argument)}"
    return kind if kind in ("folder", "csv", "npz") else name


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise expected(f"import {path}", "a readable Python file", error.strerror) from None


def mixer_parts(mixer: Any) -> list[Part]:
    """A mixer entry (a name, a mapping, or a list of them cycled over the blocks) as parts."""
    cycled = isinstance(mixer, Sequence) and not isinstance(mixer, str)
    return [Part.of(m) for m in (mixer if cycled else [mixer])]


def kernel_of(model: ModelConfig) -> Any:
    """Kernel size of a model's mixer: the one given, or the mixer's own default, or None where there is no window."""
    if model.kernel_size is not None:
        return to_plain(model.kernel_size)
    parts = [] if model.token_mixer is None else mixer_parts(model.token_mixer)
    return next((to_plain(k) for k in map(part_kernel, parts) if k is not None), None)


def part_kernel(part: Part) -> Any:
    """Kernel size of a mixer, an int or a tuple: its option, or the mixer's default, or None without a window."""
    from mixlab.mixers import MIXERS

    option = MIXERS.options(part.name).get("kernel_size")
    if option is None:
        return None
    kernel = part.options.get("kernel_size", None if option.default is option.empty else option.default)
    return tuple(kernel) if isinstance(kernel, list) else kernel


def run_label(model: ModelConfig, named: str | None = None) -> str:
    """The label of a model's mixer: ``local_attention-k5``, or ``pooling`` for a mixer at its default kernel size; how
    it starts is said unless that is at random: ``local_attention-init=warm``. ``named`` stands for name and options."""
    if model.token_mixer is None:
        return model.name
    if named is not None:
        return "-".join([named, *_kernel(kernel_of(model))])
    names = []
    for part in mixer_parts(model.token_mixer):
        options = {k: v for k, v in part.options.items() if k != "kernel_size"}
        kernel = part.options.get("kernel_size", model.kernel_size)
        names.append("-".join([part.name, *_kernel(kernel), *(f"{k}={_flat(v)}" for k, v in options.items())]))
    return "+".join(names)


def _kernel(kernel: Any) -> list[str]:
    return [] if kernel is None else [f"k{_flat(kernel)}"]


def _flat(value: Any) -> str:
    return "x".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)
