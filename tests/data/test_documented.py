"""The program for images and masks that docs/data.md shows does run; its other one is tested with all examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_images_and_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(PROGRAMS[1], {})
    shown = capsys.readouterr().out.splitlines()
    assert "torch.int64" in shown[0]
    assert shown[-1] == "torch.Size([1, 32, 32]) (32, 32)"
