"""Where masks are written is looked at before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlab.data import DataCard
from mixlab.data.mask_writing import check_places
from mixlab.errors import UserError
from tests.data.make import picture, save
from tests.data.test_mask_writing import CARD, OVERLAPPING


def test_two_images_of_one_mask_name_are_refused(tmp_path: Path) -> None:
    def check(*names: str, card: DataCard = CARD) -> None:
        check_places([tmp_path / name for name in names], tmp_path / "out", card)

    check("a.png", "b.png", "a.nii.gz")
    check("a.png", "a.nii", card=OVERLAPPING)
    alike = [("x/a.png", "y/a.png"), ("a.png", "a.tif"), ("a.nii", "a.nii.gz"), ("a.png", "A.png"), ("a.png",) * 2]
    for names in alike:
        with pytest.raises(UserError, match="expected one file name for each image, got 1:"):
            check(*names)
    with pytest.raises(UserError, match="one file name for each image"):
        check("a.png", "a.jpg", card=OVERLAPPING)


def test_what_exists_is_not_overwritten_unasked(tmp_path: Path) -> None:
    image, out = save(tmp_path / "a.png", picture(0)), tmp_path / "out"
    check_places([image], out, CARD)
    save(out / "a.png", picture(1))
    with pytest.raises(UserError, match=r"files that do not exist yet, got 1:\n  .*a\.png, try --overwrite"):
        check_places([image], out, CARD)
    check_places([image], out, CARD, overwrite=True)
    check_places([image], out, OVERLAPPING)
    for place in (tmp_path, out / ".." / "out" / ".."):
        with pytest.raises(UserError, match="another place than the images'"):
            check_places([image], place, CARD, overwrite=True)
    with pytest.raises(UserError, match="a folder to write to"):
        check_places([image], image, CARD)
    (out / "b.png").mkdir()
    (out / "lung").write_text("")
    for name, card in (("b.png", CARD), ("c.png", OVERLAPPING)):
        with pytest.raises(UserError, match="names that are free for files"):
            check_places([tmp_path / name], out, card, overwrite=True)
