"""What the runs of a study take from outside: weights of another study, and stand-ins for what is not at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixlab.baselines import is_baseline
from mixlab.data import at_hand
from mixlab.errors import Quoted, expected
from mixlab.models import WEIGHTS_OF, ModelConfig
from mixlab.stand_in import weights_at_hand, write_stand_in
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import RunFolder
from mixlab.training.checkpoint import BEST

#: ``study:NAME/LABEL``: the best checkpoint of that label and the same seed, of a study in a folder beside this one's.
REFERENCE = "study:"


def resolve(cells: Sequence[RunConfig], out: Path, *, stand_ins: bool) -> list[RunConfig]:
    """The runs with files in the place of references, and with ``stand_ins`` in the place of what is not at hand.

    Args:
        cells: the runs of a grid.
        out: the study's folder; other studies lie beside it, stand-in weights are written into it.
        stand_ins: replace data sets and weights that are not at hand, and record it in each run.

    Raises:
        UserError: a reference to a run that is not there or not finished.
    """
    data: dict[str, bool] = {}
    inputs = _Weights(out)
    found = []
    for cell in cells:
        if stand_ins:
            cell = _with_data(cell, data)
        if cell.model.pretrained is not None:
            cell = _with_weights(cell, inputs, stand_ins)
        found.append(cell)
    return found


class _Weights:
    """What many cells of a grid share: the runs of other studies, read once, and stand-in files, written once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._runs: dict[str, list[tuple[RunFolder, dict[str, Any]]]] = {}
        self._files: dict[str, Path] = {}

    def runs(self, study: str) -> list[tuple[RunFolder, dict[str, Any]]]:
        """Folders and configurations of a study's runs; none where there is no such study."""
        if study not in self._runs:
            folders = sorted((self.out.parent / study / "runs").glob("*"))
            there = [RunFolder(path) for path in folders if (path / "config.yaml").is_file()]
            self._runs[study] = [(folder, folder.config()) for folder in there]
        return self._runs[study]

    def stand_in(self, model: ModelConfig) -> Path:
        """A stand-in for a model's weights."""
        kernel = model.kernel_size if is_baseline(model.name) else None
        key = f"{model.name} {kernel}"
        if key not in self._files:
            self._files[key] = write_stand_in(model.name, self.out / "stand-ins", kernel)
        return self._files[key]


def _with_data(cell: RunConfig, known: dict[str, bool]) -> RunConfig:
    name = cell.data.name
    if name not in known:
        known[name] = at_hand(cell.data)
    if known[name]:
        return cell
    data = dataclasses.replace(cell.data, name=f"stand-in:{name}", train_per_class=None)
    return _replaced(cell, f"{name} is not at hand: a few embedded images in its place", data=data)


def _with_weights(cell: RunConfig, inputs: _Weights, stand_ins: bool) -> RunConfig:
    model, source = cell.model, str(cell.model.pretrained)
    if source.startswith(REFERENCE):  # never replaced: such a study can be run here
        return dataclasses.replace(cell, model=_of_run(model, source, cell.seed, inputs))
    if not stand_ins or weights_at_hand(source, model.name):
        return cell
    said = f"{source} for {model.name} is not at hand: numbers made by a rule in its place"
    return _replaced(cell, said, model=dataclasses.replace(model, pretrained=str(inputs.stand_in(model))))


def _replaced(cell: RunConfig, said: str, **changes: Any) -> RunConfig:
    return dataclasses.replace(cell, stand_ins=[*cell.stand_ins, said], **changes)


def _of_run(model: ModelConfig, source: str, seed: int, inputs: _Weights) -> ModelConfig:
    """The model with the best checkpoint that a reference means, and the mixers that it belongs to."""
    study, _, label = source.removeprefix(REFERENCE).partition("/")
    there = inputs.runs(study)
    runs = [(f, config) for f, config in there if config.get("label") == label and config.get("seed") == seed]
    finished = [(f, config) for f, config in runs if f.state() == "finished"]
    if not finished:
        labels = ", ".join(sorted({str(config.get("label")) for _, config in there}))
        state = f"it {runs[0][0].state()}" if runs else f"runs of {labels}" if there else "no runs"
        hint = f"to run the study {study} first, into {inputs.out.parent / study}"
        raise expected(f"weights {source}", f"a finished run of {label!r} with seed {seed}", Quoted(state), hint)
    folder, config = finished[0]
    trained = config["model"]
    return dataclasses.replace(
        model,
        pretrained=str((folder.checkpoints / BEST).resolve()),
        weights_of={key: trained[key] for key in WEIGHTS_OF if trained.get(key)},
    )
