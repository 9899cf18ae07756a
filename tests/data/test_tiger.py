"""``tiger``: patches in the authors' layout, with pixels that count for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlab.data import DataConfig, ImageData, at_hand, open_data
from mixlab.data.sources.tiger import TISSUES, patient
from mixlab.errors import UserError
from tests.data.make import picture, save

TCGA = "TCGA-A1-A0S{}-01Z-00-DX1.A44D70FA_[{}, 12530, 24892, 13993]"
PARTS = "wsirois/roi-level-annotations"


def files(root: Path, level: str = PARTS) -> Path:
    names = [f"tissue-bcss/{{}}/{TCGA.format(p, i)}.png" for p in "KLMN" for i in range(2)]
    names += [f"tissue-cells/{{}}/10{i}B_[1, 2, 3, 4].png" for i in range(4)]
    for i, name in enumerate(names):
        size = (20 + i, 30)
        mask = np.random.default_rng(i).integers(1, 8, size).astype(np.uint8)
        mask[:5] = 0
        save(root / level / name.format("images"), picture(i, (*size, 3)))
        save(root / level / name.format("masks"), mask)
    return root


def opened(root: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name="tiger", root=root, **options))


@pytest.mark.parametrize("level", [PARTS, "roi-level-annotations", "."])
def test_patches(tmp_path: Path, level: str) -> None:
    data = opened(files(tmp_path, level))
    card = data.card
    assert (card.classes, card.channels, card.ignore_label, card.background) == (TISSUES, 3, 255, None)
    assert (card.image_size, card.spacing) == (None, (0.0005, 0.0005))
    assert sum(card.sizes.values()) == 12
    assert sum(card.ignored_pixels.values()) == 12 * 5 * 30
    _, mask, _ = data.splits["train"][0]
    assert (mask[:5] == 255).all()
    assert set(mask[5:].unique().tolist()) == set(range(7))
    groups = [set(s.groups or []) for s in data.splits.values()]
    assert sum(map(len, groups)) == 8, "no patient in two splits"


def test_patients() -> None:
    assert patient(TCGA.format("K", 1)) == "TCGA-A1-A0SK"
    assert patient("100B_[35129, 6567, 36429, 7757]") == "100B"


def test_what_is_wrong(tmp_path: Path) -> None:
    assert not at_hand(DataConfig(name="tiger", root=tmp_path))
    with pytest.raises(UserError, match=r"tissue-bcss/images.*tiger\.grand-challenge\.org"):
        opened(tmp_path)
    files(tmp_path)
    assert at_hand(DataConfig(name="tiger", root=tmp_path))
    mask = tmp_path / PARTS / "tissue-cells" / "masks" / "100B_[1, 2, 3, 4].png"
    save(mask, np.full((28, 30), 8, np.uint8))
    with pytest.raises(UserError, match=r"it has the value 8 outside the classes 1 .invasive tumour"):
        opened(tmp_path)
    mask.unlink()
    with pytest.raises(UserError, match=r"image tissue-cells/100B_.* without mask"):
        opened(tmp_path)
