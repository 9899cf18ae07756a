"""Comparison with the numbers of the official implementations in this folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixlab.metaformer import MetaFormer
from mixlab.weights import load_official, to_official
from mixlab.weights.fill import fill_, image

HERE = Path(__file__).parent
DTYPES = (torch.float32, torch.float64)


def read(name: str) -> dict[str, Any]:
    """A file of this folder."""
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return content


def unit(family: str, name: str, arguments: str) -> dict[str, Any]:
    """One unit of ``units_<family>.json``."""
    return next(u for u in read(f"units_{family}")["units"] if (u["unit"], u["arguments"]) == (name, arguments))


def tolerance(dtype: torch.dtype, noise: float, scale: float) -> float:
    return 1e-6 * scale if dtype == torch.float64 else 20 * noise + 1e-4 * scale


def filled(model: MetaFormer) -> MetaFormer:
    """The model with the parameters of the rule, in evaluation mode."""
    state = to_official(model)
    fill_(state)
    load_official(model, state)
    return model.eval()


def fill_unit(module: nn.Module, given: Mapping[str, Any], names: Mapping[str, str] | None = None) -> nn.Module:
    """Fill a module under the official names of a unit.

    ``names`` maps our key, or a prefix of it, to the official one (default: the same). Every official entry must be
    used, and hold as many numbers as ours.
    """
    prefixes = sorted(names or {}, key=len, reverse=True)
    filled_state, used = {}, set()
    for key, value in module.state_dict().items():
        prefix = next((p for p in prefixes if key == p or key.startswith(f"{p}.")), None)
        official = key if prefix is None or names is None else names[prefix] + key[len(prefix) :]
        entry = {official: torch.zeros(given["state"][official], dtype=value.dtype)}
        fill_(entry)
        filled_state[key] = entry[official].reshape(value.shape)
        used.add(official)
    assert used == set(given["state"]), used ^ set(given["state"])
    module.load_state_dict(filled_state)
    return module.eval()


def unit_input(given: Mapping[str, Any], dtype: torch.dtype, grid: tuple[int, int] | None = None) -> Tensor:
    """The input of a unit as a map ``(B, C, H, W)``; tokens ``(B, N, C)`` need their ``grid``."""
    x = image(given["input_shape"]).to(dtype)
    if given["layout"].startswith("BHWC"):
        return x.permute(0, 3, 1, 2)
    return x if grid is None else x.transpose(1, 2).unflatten(2, grid)


def compare_unit(given: Mapping[str, Any], got: Tensor, dtype: torch.dtype) -> None:
    """``got`` is a map ``(B, C, H, W)``, or what the unit returns if that is no map."""
    want = torch.tensor(given["output"], dtype=torch.float64).reshape(given["output_shape"])
    layout = given["layout"]
    if layout.startswith("BHWC") or "BHWC out" in layout:
        got = got.permute(0, 2, 3, 1)
    elif "BNC" in layout:
        got = got.flatten(2).transpose(1, 2)
    limit = tolerance(dtype, given["noise"], want.abs().max().item())
    assert got.shape == want.shape
    assert (got.detach().double() - want).abs().max().item() <= limit


def compare_model(model: MetaFormer, case: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Logits and the maps of all stages, for one case of a model file."""
    x = image(case["input_shape"]).to(dtype)
    model = model.to(dtype)
    with torch.no_grad():
        maps = [m.double() for m in model.forward_stages(x)]
        logits = model(x).double()
    for row, stored in zip(logits, case["logits"], strict=True):
        want = torch.tensor(stored, dtype=torch.float64)
        limit = tolerance(dtype, case["noise"], want.abs().max().item())
        assert (row[: len(want)] - want).abs().max().item() <= limit
    for got, stage in zip(maps, case["stages"], strict=True):
        assert list(got.shape) == stage["shape_bchw"]
        first = torch.tensor(stage["first16"], dtype=torch.float64)
        limit = tolerance(dtype, stage["noise"], first.abs().max().item())
        assert (got.flatten()[:16] - first).abs().max().item() <= limit
        assert abs(got.mean().item() - stage["mean"]) <= max(limit, 1e-7)
        assert abs(got.std(correction=0).item() - stage["std"]) <= max(limit, 1e-6)
