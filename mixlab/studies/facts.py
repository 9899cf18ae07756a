"""Facts of a run, as words: what a table of published numbers is matched against.

Made from the content of a run's ``config.yaml`` alone and without torch, because reports are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Facts by name; None where a fact does not apply to a run, such as the kernel size of a mixer without a window.
Facts = dict[str, str | None]

FACTS: Final = (
    *("mixer", "kernel_size", "stages", "data", "variant", "init", "warm", "pretrained", "embedding", "recipes"),
)

#: Kinds of data whose sets are known by what comes after the kind.
KNOWN_BY_PLACE: Final = ("folder", "csv", "npz", "medmnist", "stand-in")

#: Kernel sizes of baselines where the configuration gives none.
BASELINE_KERNELS: Final = {"resnet18": 3}


def facts_of(config: Mapping[str, Any], windows: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a run.

    Args:
        config: the content of its ``config.yaml``.
        windows: default kernel size by mixer, for runs that give none; None for a mixer without a window.

    Returns:
        A text for each name of :data:`FACTS`. None, which matches every value of a column: ``kernel_size`` without a
        window, ``stages`` of a model whose mixers were not exchanged. What a configuration does not name is ``""``.
    """
    model: Mapping[str, Any] = config.get("model") or {}
    data: Mapping[str, Any] = config.get("data") or {}
    parts = _parts(model.get("token_mixer"))
    # A mixer's mapping may have an `init` of its own; that of cycled mixers which differ is theirs together.
    init = _joined([str(options.get("init") or model.get("init") or "random") for _, options in parts or [("", {})]])
    return {
        "mixer": "+".join(name for name, _ in parts) or str(model.get("name", "")),
        "kernel_size": _kernel(model, parts, windows or {}),
        "stages": _stages(model, parts),
        "data": data_fact(str(data.get("name", ""))),
        "variant": _word(config.get("variant")),
        "init": init,
        "warm": str(init == "warm"),
        "pretrained": str(model.get("pretrained") is not None),
        "embedding": _joined([name for name, _ in _parts(model.get("embedding"))]),
        "recipes": _word(config.get("recipes")),
    }


def slug(name: str) -> str:
    """A data set's name as part of a label: ``medmnist:pneumoniamnist@28`` becomes ``pneumoniamnist@28``,
    ``npz:mednist/mednist_subset.npz`` becomes ``mednist_subset``, and ``imagewoof:full`` becomes ``imagewoof-full``."""
    kind, _, rest = name.partition(":")
    if rest and kind not in KNOWN_BY_PLACE:
        return f"{kind}-{slug(rest)}"
    last = name.rpartition(":")[2].rstrip("/\\").replace("\\", "/").rpartition("/")[2].removesuffix(".npz")
    return last or name.replace("/", "_")


def data_fact(name: str) -> str:
    """A data set's name without its size or version: ``medmnist:pneumoniamnist@224`` is ``pneumoniamnist``, and
    ``imagewoof:full`` is ``imagewoof``."""
    kind, _, rest = name.partition(":")
    return kind if rest and kind not in KNOWN_BY_PLACE else slug(name).partition("@")[0]


def flat(value: Any) -> str:
    """A value as one word: ``3``, ``3x5``; a size that is the same along each axis is that of one."""
    if isinstance(value, list | tuple):
        words = [flat(v) for v in value]
        return words[0] if words and len(set(words)) == 1 else "x".join(words)
    return str(value)


def _parts(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and options of a part, or of a list of them."""
    if value is None:
        return []
    found = []
    for part in value if isinstance(value, list | tuple) else [value]:
        found.append((str(part.get("name", "")), part) if isinstance(part, Mapping) else (str(part), {}))
    return found


def _kernel(model: Mapping[str, Any], parts: list[tuple[str, Mapping[str, Any]]], windows: Mapping[str, Any]) -> Any:
    given = model.get("kernel_size")
    kernels = [given] + [options.get("kernel_size", windows.get(name)) for name, options in parts]
    if not parts:
        kernels.append(BASELINE_KERNELS.get(str(model.get("name"))))
    return next((flat(kernel) for kernel in kernels if kernel is not None), None)


def _stages(model: Mapping[str, Any], parts: list[tuple[str, Mapping[str, Any]]]) -> str | None:
    if model.get("stages") is not None:
        return str(model["stages"])
    return "TTTT" if parts else None  # the mixer is in all stages then, and every frame has four


def _joined(words: list[str]) -> str:
    return "+".join(dict.fromkeys(words))


def _word(value: Any) -> str:
    return "" if value is None else str(value)
