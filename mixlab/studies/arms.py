"""The arms of a study: every mixer at every window, pattern of stages and variant, and the baselines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlab.data import DataConfig
from mixlab.errors import Quoted, expected, unknown
from mixlab.mixers import MIXERS
from mixlab.models import ModelConfig
from mixlab.registry import Part
from mixlab.studies.configuration import build, to_plain
from mixlab.studies.run_config import mixer_parts, run_label
from mixlab.training.recipe import Recipe

if TYPE_CHECKING:
    from mixlab.studies.grid import StudyConfig

#: Keys of a variant that are no fields of the model.
OWN_KEYS = ("only", "without", "mixer")


@dataclass(frozen=True)
class Arm:
    """What is compared: a model and how it is trained, on every data set and seed.

    Attributes:
        entry: the mixer or baseline as the study file has it.
        model: the model.
        label: its name in the report.
        variant: name of the variant; empty where the study has none.
        recipes: ``own`` or ``matched``.
    """

    entry: Any
    model: ModelConfig
    label: str
    variant: str = ""
    recipes: str = "own"


def arms(study: StudyConfig) -> Iterator[Arm]:
    """All arms, in the order of the study file."""
    for arm in (*_mixer_arms(study), *_baseline_arms(study)):
        if study.recipes == "matched":
            yield dataclasses.replace(arm, recipes="matched")
            continue
        yield arm
        if study.recipes == "both" and recipe_changes(study, arm):
            yield dataclasses.replace(arm, label=f"{arm.label}-matched", recipes="matched")


def _mixer_arms(study: StudyConfig) -> Iterator[Arm]:
    for mixer in study.mixers:
        parts, named = _without_label(mixer_parts(mixer))
        open_to = ["kernel_size" in MIXERS.options(p.name) and "kernel_size" not in p.options for p in parts]
        for kernel in (study.kernel_sizes or [study.model.kernel_size]) if any(open_to) else [None]:
            # ModelConfig refuses a kernel size that not every part takes: then those that do get it themselves.
            sized = [
                p.with_options(kernel_size=kernel) if takes and kernel is not None and not all(open_to) else p
                for p, takes in zip(parts, open_to, strict=True)
            ]
            patterns: list[str | None] = [*study.stages] or [study.model.stages]
            for stages in patterns:
                model = dataclasses.replace(
                    study.model,
                    token_mixer=_entry(sized),
                    kernel_size=kernel if all(open_to) else None,
                    stages=stages,
                )
                label = run_label(model, named) + (f"-{stages}" if len(study.stages) > 1 else "")
                own = [n for n, v in study.variants.items() if _is_for(v, {p.name for p in parts})]
                for name in own or ([] if study.variants else [""]):
                    suffix = f"-{name}" if len(own) > 1 else ""
                    changed = _changed(model, study.variants.get(name, {}), sized, name)
                    yield Arm(mixer, changed, label + suffix, name)


def _baseline_arms(study: StudyConfig) -> Iterator[Arm]:
    for baseline in study.baselines:
        fields = {"name": baseline} if isinstance(baseline, str) else dict(baseline)
        label = fields.pop("label", None)
        model = build(ModelConfig, fields, f"study baselines, {fields.get('name', '?')}")
        yield Arm(baseline, model, str(label or baseline_label(fields)))


def _without_label(parts: list[Part]) -> tuple[list[Part], str | None]:
    """A mixer's parts, and the ``label`` that the study gives it in the place of its name and options."""
    labels = [str(p.options["label"]) for p in parts if "label" in p.options]
    bare = [Part(p.name, {k: v for k, v in p.options.items() if k != "label"}) for p in parts]
    return bare, "+".join(labels) or None


def _entry(parts: list[Part]) -> Any:
    plain = [to_plain(p) for p in parts]
    return plain[0] if len(plain) == 1 else plain


def _is_for(variant: Mapping[str, Any], mixers: set[str]) -> bool:
    only = variant.get("only")
    return (only is None or mixers <= set(only)) and not mixers & set(variant.get("without", ()))


def _changed(model: ModelConfig, variant: Mapping[str, Any], parts: list[Part], name: str) -> ModelConfig:
    changes = {k: v for k, v in variant.items() if k not in OWN_KEYS}
    if "mixer" in variant:
        changes["token_mixer"] = _entry([p.with_options(**variant["mixer"]) for p in parts])
    if not changes:
        return model
    return build(ModelConfig, {**to_plain(model), **changes}, f"study variants, {name}")


def check_variant(name: str, variant: Any, mixers: Collection[str]) -> None:
    """Refuse a variant that is no change of a model.

    Raises:
        UserError: a key that is neither a field of the model nor ``mixer``, ``only`` or ``without``, a mixer that the
            study does not have, or a name that cannot be part of a folder's.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise expected("study variants", "names of letters, digits, _ . + and -", name, "coord_mlp")
    fields = [f.name for f in dataclasses.fields(ModelConfig)]
    for key in variant:
        if key not in (*OWN_KEYS, *fields):
            raise unknown(f"key in study variants, {name}", str(key), [*OWN_KEYS, *fields])
    if not isinstance(variant.get("mixer", {}), Mapping):
        got = Quoted(type(variant["mixer"]).__name__)
        raise expected(f"study variants, {name}, mixer", "options of the mixer", got, "mixer: {slopes: true}")
    for key in ("only", "without"):
        listed = variant.get(key, [])
        if not isinstance(listed, list):
            raise expected(f"study variants, {name}, {key}", "a list of mixers", listed, f"{key}: [local_attention]")
        for mixer in listed:
            if mixer not in mixers:
                raise unknown(f"mixer of this study in variants, {name}, {key}", str(mixer), mixers)


def recipe_changes(study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """Fields of the recipe that are the arm's own."""
    changes: dict[str, Any] = {}
    for part in mixer_parts(arm.entry):
        changes |= study.mixer_recipes.get(part.name, {})
    return changes


def recipe_of(study: StudyConfig, arm: Arm, data: DataConfig) -> Recipe:
    """The recipe of an arm on a data set: the study's, the data set's changes over it, then the arm's own.

    Raises:
        UserError: a value that does not fit its field.
    """
    by_data = study.data_recipes.get(data.name, {})
    own = {} if arm.recipes == "matched" else recipe_changes(study, arm)
    if not by_data and not own:
        return study.recipe
    values = {**to_plain(study.recipe), **by_data}
    name = mixer_parts(arm.entry)[0].name
    scaled = {k: _times(values.get(k), v, f"mixer_recipes, {name}, {k}") for k, v in own.items()}
    where = [f"mixer_recipes, {name}"] * bool(own) + [f"data_recipes, {data.name}"] * bool(by_data)
    return build(Recipe, {**values, **scaled}, " and ".join(where))


def _times(value: Any, change: Any, where: str) -> Any:
    """``change`` itself, or for ``x2`` twice the value; None, a budget that is not set, stays None."""
    factor = re.fullmatch(r"x(\d+(?:\.\d+)?)", change) if isinstance(change, str) else None
    if factor is None or value is None:
        return None if factor is not None else change
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise expected(where, "a factor for a number", change, "the value itself")
    scaled = value * float(factor[1])
    return round(scaled) if isinstance(value, int) else scaled


def baseline_label(fields: Mapping[str, Any]) -> str:
    """``resnet18``, or ``resnet18-k5``, and what else was changed in the model; of weights the file's name."""
    names = [str(fields.get("name", ModelConfig.name))]
    for key, value in to_plain(dict(fields)).items():
        if key == "kernel_size":
            names.append(f"k{'x'.join(map(str, value)) if isinstance(value, list) else value}")
        elif key == "options" and isinstance(value, Mapping):
            names += [f"{k}={'x'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in value.items()]
        elif key != "name":
            names.append(f"{key}={Path(value).stem if key == 'pretrained' else value}")
    return "-".join(names)
