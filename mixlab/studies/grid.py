"""A study: a named grid of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase as fnmatch
from typing import Any, Literal

from mixlab.data import DataConfig
from mixlab.errors import Quoted, expected, unknown
from mixlab.models import ModelConfig
from mixlab.studies.arms import arms, check_variant, recipe_of
from mixlab.studies.configuration import build
from mixlab.studies.facts import slug
from mixlab.studies.run_config import RunConfig, mixer_parts
from mixlab.training.recipe import Recipe, expand_preset


@dataclass(kw_only=True)
class StudyConfig:
    """A comparison of token mixers in the same frame, on the same data, over several seeds."""

    name: str = "study"
    """Name of the study and of its folder."""
    mixers: list[Any] = field(default_factory=list)
    """Token mixers: names, mappings with options (and a `label` for the report), or lists of them that are cycled over
    the blocks."""
    baselines: list[Any] = field(default_factory=list)
    """Whole models to compare with, each trained once a seed and data set: names such as resnet18 or timm:NAME, or
    mappings of a model's fields, such as {name: resnet18, kernel_size: 5}, with a `label` for the report if wanted."""
    kernel_sizes: list[Any] = field(default_factory=list)
    """Kernel sizes for mixers (or parts of cycled lists) that have one: an int, or one per axis; others appear once."""
    stages: list[str] = field(default_factory=list)
    """Stage patterns such as TTTT and PPTT (T: the mixer, P: pooling); empty for the model's own."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Named changes of the model, each an arm of every mixer: fields of `model`, options of the mixer under `mixer`;
    `only` and `without` list the mixers that it is for, or not for. Its name is part of the label where the mixer has
    several."""
    only: list[str] = field(default_factory=list)
    """Patterns of labels (`local_attention-*`): train these arms only, now or on this machine; empty for all."""
    seeds: int | list[int] = 3
    """Number of seeds, counted from base_seed, or the seeds themselves."""
    base_seed: int = 0
    """First seed, when `seeds` is a number."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The frame in which the mixers are exchanged."""
    data: list[DataConfig] = field(default_factory=lambda: [DataConfig()])
    """One or more data sets; `data.folds` makes every fold of a cross-validation a run."""
    recipe: Recipe = field(default_factory=Recipe)
    """How every run is trained (in a file also `preset: short`)."""
    mixer_recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the recipe that differ for a mixer or a baseline, by its name; `x2` is twice the recipe's value."""
    data_recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the recipe that differ for a data set, by its name."""
    recipes: Literal["own", "matched", "both"] = "own"
    """Whether arms train with their `mixer_recipes` (own) or all with one recipe (matched); both: arms that have a
    recipe of their own appear twice."""
    precision: str = "auto"
    """`32-true`, `bf16-mixed`, ...; `auto` is bfloat16 on a CUDA device that has it, else float32."""
    imports: list[str] = field(default_factory=list)
    """Python files to import first, for mixers of your own."""
    questions: list[str] = field(default_factory=list)
    """What the study asks, in words, for the report."""
    published: dict[str, Any] | None = None
    """A table of published numbers that the report sets beside these."""
    stand_ins: bool = False
    """Replace data sets and weights that are not at hand, to try the machinery: scores then mean nothing."""
    profile: str | None = None
    """Which of the study file's profiles this is."""

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in '/\\:*?"<>|') or self.name.startswith("."):
            raise expected("study name", "a name that can be a folder's", self.name, "letters, digits, - and _")
        if not self.mixers and not self.baselines:
            raise expected("study mixers", "at least one mixer", self.mixers, "--mixers identity,pooling,sep_conv")
        if not self.data:
            raise expected("study data", "at least one data set", self.data, "--data digits")
        if not self.seed_list:
            raise expected("study seeds", "at least one seed", self.seeds, "--seeds 3")
        if any(seed < 0 for seed in self.seed_list):
            raise expected("study seeds", "seeds of 0 or more", self.seeds, "--base-seed 0")
        mixers = {part.name for mixer in self.mixers for part in mixer_parts(mixer)}
        names = mixers | {part.name for baseline in self.baselines for part in mixer_parts(baseline)}
        for name in self.mixer_recipes:
            if name not in names:
                raise unknown("mixer or baseline of this study in mixer_recipes", name, names)
        for name in self.data_recipes:
            if name not in {data.name for data in self.data}:
                raise unknown("data set of this study in data_recipes", name, {data.name for data in self.data})
        for name, variant in self.variants.items():
            check_variant(name, variant, mixers)

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        if isinstance(self.seeds, int):
            return [self.base_seed + i for i in range(self.seeds)]
        return list(self.seeds)

    @classmethod
    def of(cls, plain: dict[str, Any], where: str = "study") -> StudyConfig:
        """A study from plain values: one data set or a list, data sets also as bare names, recipes with a preset."""
        plain = dict(plain)
        if "data" in plain:
            data = plain["data"] if isinstance(plain["data"], list) else [plain["data"]]
            plain["data"] = [{"name": d} if isinstance(d, str) else d for d in data]
        for key in ("mixers", "baselines", "kernel_sizes", "stages", "only"):
            if key in plain and not isinstance(plain[key], list):
                plain[key] = [plain[key]]
        if "recipe" in plain:
            plain["recipe"] = expand_preset(plain["recipe"])
        return build(cls, plain, where)

    def runs(self) -> list[RunConfig]:
        """The runs of the grid, seeds outermost: an interrupted study has whole rounds of all labels."""
        every = list(arms(self))
        cells = [
            RunConfig(
                model=arm.model,
                data=data,
                recipe=recipe_of(self, arm, data),
                seed=seed,
                precision=self.precision,
                imports=self.imports,
                label=arm.label + (f"-{slug(data.name)}" if len(self.data) > 1 else ""),
                variant=arm.variant,
                recipes=arm.recipes,
            )
            for seed in self.seed_list
            for data in self._folded()
            for arm in every
        ]
        if not cells:
            raise expected("study", "a grid with at least one run", Quoted("an empty one"), "other mixers or data")
        chosen = [c for c in cells if not self.only or any(fnmatch(c.label, pattern) for pattern in self.only)]
        if not chosen:
            labels = ", ".join(dict.fromkeys(c.label for c in cells))
            raise expected("study only", f"a pattern of one of {labels}", self.only, f"--only '{cells[0].label}'")
        return chosen

    def _folded(self) -> Iterator[DataConfig]:
        for data in self.data:
            if data.folds is None or data.fold is not None:
                yield data
            else:
                for fold in range(data.folds):
                    yield dataclasses.replace(data, fold=fold)
