"""What the documentation shows is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixlab.data import DataConfig, open_data
from mixlab.stand_in import write_stand_in

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import torch, mixlab
model = mixlab.create_model("metaformer_nano", token_mixer={name!r}, num_classes=3, spatial_dims=3)
model(torch.randn(1, 3, 16, 19, 17)).sum().backward()
assert {name!r} in mixlab.list_mixers()
print(mixlab.__file__, model.cost((16, 19, 17)).other_ops)
"""


def blocks(document: str) -> list[str]:
    """Python code blocks of a Markdown file."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def run(code: str, cwd: Path = ROOT, **environment: str) -> str:
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_contributing_example_in_the_package(tmp_path: Path) -> None:
    """The mixer's file is all that is added to a copy of the package."""
    shutil.copytree(ROOT / "mixlab", tmp_path / "mixlab", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mixlab" / "mixers" / "row_mean.py").write_text(blocks("CONTRIBUTING.md")[0])
    printed = run(PROBE.format(name="row_mean"), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert printed.startswith(str(tmp_path))  # the copy ran, not the installed package


@pytest.mark.slow
@pytest.mark.parametrize("source", ["CONTRIBUTING.md", "examples/my_mixers.py"])
def test_example_from_a_users_own_file(source: str, tmp_path: Path) -> None:
    """The file goes through ``--import`` and its mixer through a whole run."""
    mine = tmp_path / "mine.py"
    mine.write_text(blocks(source)[0] if source.endswith(".md") else (ROOT / source).read_text())
    mixer = re.search(r'register_mixer\("(\w+)"\)', mine.read_text())
    assert mixer is not None
    command = f"study run --import {mine} --mixers {mixer[1]},identity --data digits --train-per-class 5 --epochs 1"
    options = ["--recipe", "short", "--seeds", "1", "--out", str(tmp_path / "study"), "--jobs", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "mixlab.cli", *command.split(), *options], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    copies = list((tmp_path / "study" / "runs").glob(f"{mixer[1]}*/imports/*.py"))
    assert [c.read_text() for c in copies] == [mine.read_text()]
    assert (tmp_path / "study" / "report.html").is_file()


def write_weights(block: str, folder: Path) -> None:
    """The files of weights that a block names, as stand-ins for the published ones."""
    named = dict(re.findall(r'create_model\(\s*"(\w+)",\s*pretrained="([^":]+)"', block))
    assert set(named.values()) == set(re.findall(r'pretrained="([^":]+)"', block))
    for model, name in named.items():
        write_stand_in(model, folder).replace(folder / name)


PAGES = [pytest.param(f"docs/{page}.md", marks=pytest.mark.slow) for page in ("library", "segmentation")]


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_library_examples(document: str, tmp_path: Path) -> None:
    """In a folder of their own, for what they write and the weights that they start from."""
    for block in blocks(document):
        write_weights(block, tmp_path)
        run("import mixlab, torch\n" + block, cwd=tmp_path, PYTHONPATH=str(ROOT))


def test_the_documented_npz_file_can_be_opened(tmp_path: Path) -> None:
    block, _ = blocks("docs/data.md")
    run(block, cwd=tmp_path)
    card = open_data(DataConfig(name="npz:mine.npz", root=tmp_path)).card
    assert (card.classes, card.sizes) == (("benign", "malignant"), {"train": 40, "val": 10, "test": 10})
