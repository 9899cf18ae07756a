"""Pages made from the code: one a mixer from its docstring, and tables of mixers, models and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixlab.baselines import has_decoder, list_baselines
from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.embeddings import EMBEDDINGS, POSITIONS
from mixlab.heads import DECODERS
from mixlab.mixers import FACTS, MIXERS, mixer_info
from mixlab.models import create_model, list_models, model_info
from mixlab.registry import Registry

WIDTH, SIZE = 96, (56, 56)  # a multiple of every mixer's head size


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def say(value: Any) -> str:
    """A fact for a table."""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def millions(value: int) -> str:
    return f"{value / 1e6:,.2f}"


def built(registry: Registry[Any], name: str) -> Any:
    """The part for a map of 56 x 56 positions with 96 channels, with default options."""
    grid = {"grid_size": SIZE} if getattr(registry[name], "needs_grid", False) else {}
    with torch.device("meta"):
        return registry[name](WIDTH, **grid)


def cost_section(registry: Registry[Any], name: str) -> str:
    """Table of costs."""
    cost = built(registry, name).cost(SIZE)
    numbers = [cost.macs_needed, cost.macs_computed, cost.macs_dense, cost.other_ops]
    return f"On a map of 56 x 56 positions with {WIDTH} channels, with default options:\n\n" + table(
        ["parameters", "MACs needed (M)", "computed (M)", "dense (M)", "other operations (M)"],
        [[f"{cost.parameters:,}", *map(millions, numbers)]],
    )


def reference(part: Any) -> str:
    """Sphinx's directive for a class, or for a function that makes one."""
    name = f"{part.__module__}.{part.__qualname__}"
    if not isinstance(part, type):
        return f"```{{eval-rst}}\n.. autofunction:: {name}\n```\n"
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n   :members: forward, cost\n```\n"


def mixer_page(name: str) -> str:
    """One mixer: its own documentation, what it includes, its cost."""
    info = mixer_info(name)
    facts = table(["includes", ""], [[f.replace("_", " "), say(info[f])] for f in FACTS])
    page = f"# {name}\n\n{reference(MIXERS[name])}\n## What it includes\n\n{facts}\n"
    return f"{page}## Cost\n\n{cost_section(MIXERS, name)}"


def embeddings_page() -> str:
    """All patch embeddings and positions."""
    rows = []
    for name in EMBEDDINGS:
        with torch.device("meta"):
            cost = EMBEDDINGS[name](64, 128).cost(SIZE)
        options = ", ".join(f"{k}={p.default}" for k, p in EMBEDDINGS.options(name).items())
        rows.append([f"`{name}`", options, f"{cost.parameters:,}", millions(cost.macs_needed)])
    index = table(["name", "options", "parameters", "MACs (M)"], rows)
    parts = [f"## {name}\n\n{reference(EMBEDDINGS[name])}" for name in EMBEDDINGS]
    places = [f"## position {name}\n\n{reference(POSITIONS[name])}" for name in POSITIONS]
    return f"{EMBEDDINGS_TEXT}\n{index}\n" + "\n".join([*parts, *places])


EMBEDDINGS_TEXT = """# Patch embeddings

What makes tokens: the stem, and the downsampling before each later stage. A model takes another one by name, for all
stages or as a list of one a stage; each stage keeps its stride.

```python
mixlab.create_model("metaformer_s12", embedding="coord_mlp+conv")
mixlab.create_model("metaformer_s12", stem_stride=2)  # small images and dense tasks: features at strides 2, 4, 8, 16
```

In study files the same fields stand under `model:`. `conv` and `coord_mlp+conv` take the published convolution of a
stage, and an overlapping one where none was published. Parameters and multiply-accumulates below: from 64 to 128
channels, on a map of 56 x 56 positions, with default options.
"""


def channel_mixers_page() -> str:
    """All channel mixers."""
    parts = [
        f"## {name}\n\n{reference(CHANNEL_MIXERS[name])}\n{cost_section(CHANNEL_MIXERS, name)}"
        for name in CHANNEL_MIXERS
    ]
    return "# Channel mixers\n\nWhat works on the channels of each position, after the token mixer.\n\n" + "\n".join(
        parts
    )


def write_pages(folder: Path) -> None:
    """Write every generated page below ``folder``."""
    mixers = folder / "mixers"
    mixers.mkdir(parents=True, exist_ok=True)
    for name in MIXERS:
        (mixers / f"{name}.md").write_text(mixer_page(name))
    rows = []
    for name in MIXERS:
        info = mixer_info(name)
        rows.append([f"[{name}](mixers/{name}.md)", *(say(info[f]) for f in FACTS)])
    index = table(["mixer", *(f.replace("_", " ") for f in FACTS)], rows)
    toc = "```{toctree}\n:hidden:\n\n" + "\n".join(f"mixers/{n}" for n in MIXERS) + "\n```\n"
    (folder / "mixers.md").write_text(
        "# Token mixers\n\nWhat each mixer contains beside the mixing itself. Published mixers differ in this, and a "
        f"comparison that does not say so misleads.\n\n{index}\n{toc}"
    )
    (folder / "channel_mixers.md").write_text(channel_mixers_page())
    (folder / "embeddings.md").write_text(embeddings_page())
    (folder / "models.md").write_text(models_page())
    (folder / "dense.md").write_text(dense_page())
    (folder / "decoders.md").write_text(decoders_page())


def models_page() -> str:
    """One table a paper: what each model has by our count, and beside it what was published."""
    header = ["model", "depths", "widths", "mixers", "M", "published", "G", "published", "px", "top-1", ""]
    groups: dict[str, list[list[str]]] = {}
    for name in list_models():
        info = model_info(name)
        row = [
            f"`{name}`",
            ",".join(map(str, info["depths"])),  # without spaces, so that browsers do not break the line
            ",".join(map(str, info["widths"])),
            ", ".join(dict.fromkeys(info["mixers"])),
            known(info["parameters"], ".2f", 1e6),
            known(info["published_parameters"]),
            known(info["macs"], ".2f", 1e9),
            known(info["published_macs"]),
            str(info["image_size"]),
            known(info["published_top1"], ".1f"),
            info["note"] or "",
        ]
        source = "mixlab" if info["paper"] is None else f"{info['paper']}, {info['repository']}"
        groups.setdefault(source, []).append(row)
    return "\n".join(f"**{source}**\n\n{table(header, rows)}" for source, rows in sorted(groups.items()))


DENSE_MIXERS: list[tuple[str, int | None]] = [("pooling", 3), ("local_attention", 5), ("sep_conv", 5), ("conv", 3)]
DENSE_SIZE, DENSE_CLASSES = 256, 5


def dense_page() -> str:
    """One table: the frame of the study with each decoder, and the networks that have one of their own."""
    rows = []
    for mixer, kernel in DENSE_MIXERS:
        named = f"`metaformer_s12`, {mixer}, k={kernel}"
        for decoder in DECODERS:
            options = {"decoder": decoder, "token_mixer": mixer, "kernel_size": kernel}
            rows.append(dense_row("metaformer_s12", named, f"`{decoder}`", options))
    own = [name for name in list_baselines() if has_decoder(name)]
    return table(
        ["model", "decoder", "M", "decoder's", "G", "M in 3D"],
        [*rows, *(dense_row(name, f"`{name}`", "its own", {}) for name in own)],
    )


def dense_row(name: str, named: str, decoder: str, options: dict[str, Any]) -> list[str]:
    """Parameters in 2D and 3D, and MACs in 2D, of one dense model."""
    with torch.device("meta"):
        flat, volume = (
            create_model(name, num_classes=DENSE_CLASSES, in_channels=1, spatial_dims=dims, **options)
            for dims in (2, 3)
        )
    cost = flat.cost((DENSE_SIZE,) * 2)
    part = flat.decoder if options else None
    share = "" if part is None else known(sum(p.numel() for p in part.parameters()), ".2f", 1e6)
    parameters = sum(p.numel() for p in volume.parameters())
    return [named, decoder, known(cost.parameters, ".2f", 1e6), share, known(cost.macs_computed, ".2f", 1e9),
            known(parameters, ".2f", 1e6)]  # fmt: skip


def decoders_page() -> str:
    """The decoders' own documentation."""
    return "\n".join(f"**{name}**\n\n{reference(DECODERS[name])}" for name in DECODERS)


def known(value: float | None, form: str = "g", unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)
