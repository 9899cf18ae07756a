"""Pages made from the code: one a mixer from its docstring, and tables of mixers, models and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixlab.models import create_model, list_models
from mixlab.mixers import MIXERS, mixer_info

FACTS = ("subtracts_input", "projections", "mixes_channels", "learned", "position", "reach")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def say(value: Any) -> str:
    """A fact for a table."""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def millions(value: int) -> str:
    return f"{value / 1e6:,.2f}"


def mixer_page(name: str) -> str:
    """One mixer: facts, cost on a 56 x 56 map of 64 channels, and its own documentation."""
    info, mixer = mixer_info(name), MIXERS[name]
    cost = mixer(64).cost((56, 56))  # type: ignore[call-arg]
    facts = table(["includes", ""], [[f.replace("_", " "), say(info[f])] for f in FACTS])
    costs = table(
        ["parameters", "MACs needed (M)", "computed (M)", "dense (M)", "other operations (M)"],
        [
            [
                f"{cost.parameters:,}",
                millions(cost.macs_needed),
                millions(cost.macs_computed),
                millions(cost.macs_dense),
                millions(cost.other_ops),
            ]
        ],
    )
    path = f"{mixer.__module__}.{mixer.__qualname__}"
    return (
        f"# {name}\n\n```{{eval-rst}}\n.. autoclass:: {path}\n   :members: forward, cost\n```\n\n"
        f"## What it includes\n\n{facts}\n"
        f"## Cost\n\nOn a map of 56 x 56 positions with 64 channels, with default options:\n\n{costs}"
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
    (folder / "models.md").write_text(models_page())


def models_page() -> str:
    """Every architecture with its own mixer: parameters and MACs at 224 x 224."""
    rows = []
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        cost = model.cost((224, 224))
        depths = ", ".join(str(s.depth) for s in model.config.stages)
        widths = ", ".join(str(s.width) for s in model.config.stages)
        rows.append([name, depths, widths, f"{cost.parameters:,}", f"{cost.macs_needed / 1e9:.2f}"])
    header = ["model", "depths", "widths", "parameters", "MACs at 224 x 224 (G)"]
    return f"# Models\n\nWith pooling, three channels and 1000 classes.\n\n{table(header, rows)}"
