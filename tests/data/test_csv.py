"""``csv:PATH``, groups and cross-validation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mixlab.data import DataConfig, ImageData, open_data
from mixlab.data.membership import draw_order
from mixlab.errors import UserError
from tests.data.make import image_folder, picture, save, table


def rows_of(root: Path, counts: dict[str, int], *, per_group: int = 0) -> list[dict[str, str]]:
    """A table of a new image folder; with ``per_group``, so many images of a class make a patient."""
    image_folder(root, counts)
    rows = [{"path": f"{c}/{i:02d}.png", "label": c} for c, n in counts.items() for i in range(n)]
    if per_group:
        for k, row in enumerate(rows):
            row["group"] = f"p{row['label']}{k // per_group}"
    return rows


def opened(path: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name=f"csv:{path}", **options))


def groups_of(data: ImageData, name: str) -> set[str]:
    return set(data.splits[name].groups or ())


def test_paths_are_relative_to_the_table_or_the_root(tmp_path: Path) -> None:
    data = opened(table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 8, "b": 8})))
    assert data.card.sizes == {"train": 12, "val": 2, "test": 2}
    assert data.splits["train"].groups is None
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "t.csv", tmp_path / "elsewhere" / "t.csv")
    moved = opened(tmp_path / "elsewhere" / "t.csv", root=tmp_path)
    assert moved.fingerprint == data.fingerprint
    with pytest.raises(UserError, match="16 of 16 lines at fault") as error:
        opened(tmp_path / "elsewhere" / "t.csv")
    assert "a/00.png: no such file" in str(error.value)


def test_absolute_paths_inside_the_root_are_as_good(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "here", {"a": 8, "b": 8})
    relative = opened(table(tmp_path / "here" / "t.csv", rows))
    absolute = [{**r, "path": str(tmp_path / "here" / r["path"])} for r in rows]
    data = opened(table(tmp_path / "here" / "u.csv", absolute))
    assert data.splits["test"].ids == relative.splits["test"].ids
    assert data.fingerprint == relative.fingerprint
    (tmp_path / "there").mkdir()
    data = opened(table(tmp_path / "there" / "u.csv", absolute))
    assert "16 absolute paths outside there" in data.events[0]["message"]


def test_given_splits_and_integer_labels(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"2": 6, "10": 6})
    for i, row in enumerate(rows):
        row["split"] = ("train", "Valid", "test")[i % 3]
    data = opened(table(tmp_path / "t.csv", rows))
    assert data.card.classes == ("2", "10")
    assert data.card.sizes == {"train": 4, "val": 4, "test": 4}


def test_a_group_is_never_divided(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 30, "b": 20}, per_group=4))
    for seed in range(5):
        data = opened(path, split_seed=seed)
        train, val, test = (groups_of(data, s) for s in ("train", "val", "test"))
        assert train
        assert val
        assert test
        assert not (train & val) | (train & test) | (val & test)
        assert all(min(counts) > 0 for counts in data.card.class_counts.values())


def test_a_divided_group_is_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"a": 9, "b": 9}, per_group=3)
    for i, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[i // 3 % 3]
    opened(table(tmp_path / "t.csv", rows))
    rows[0]["split"] = "test"
    with pytest.raises(UserError, match="1 divided: 'pa0' in test and train"):
        opened(table(tmp_path / "t.csv", rows))


def test_a_case_without_a_group_stands_for_itself(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"a": 9, "b": 9}, per_group=3)
    rows[0]["group"] = rows[9]["group"] = ""
    data = opened(table(tmp_path / "t.csv", rows))
    assert any("2 cases have no group" in e["message"] for e in data.events)


def test_folds_take_every_case_once_and_leave_the_test_split(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 20, "b": 20}))
    whole = opened(path)
    folds = [opened(path, folds=4, fold=k) for k in range(4)]
    pool = sorted(whole.splits["train"].ids + whole.splits["val"].ids)
    assert sorted(i for d in folds for i in d.splits["val"].ids) == pool
    for k, data in enumerate(folds):
        assert data.splits["test"].ids == whole.splits["test"].ids
        assert sorted(data.splits["train"].ids + data.splits["val"].ids) == pool
        assert max(data.card.class_counts["val"]) - min(data.card.class_counts["val"]) <= 1
        assert f"fold {k} of 4" in data.card.splits
        assert "fold" in {e["kind"] for e in data.events}
    assert len({d.fingerprint for d in folds}) == 4
    assert opened(path, folds=4, fold=2).fingerprint == folds[2].fingerprint
    assert opened(path, folds=4, fold=2, split_seed=1).fingerprint != folds[2].fingerprint


def test_folds_keep_groups_whole(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 24, "b": 24}, per_group=3))
    for k in range(3):
        data = opened(path, folds=3, fold=k)
        assert not groups_of(data, "train") & groups_of(data, "val")
        assert not groups_of(data, "test") & (groups_of(data, "train") | groups_of(data, "val"))


def test_too_many_folds(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 24, "b": 12}, per_group=3))
    with pytest.raises(UserError, match=r"at least 4 groups of each class, got 'b' has 3"):
        opened(path, folds=4, fold=0)
    with pytest.raises(UserError, match="a fold from 0 to 2"):
        opened(path, folds=3)


def test_a_class_with_few_patients(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", rows_of(tmp_path, {"a": 24, "b": 6}, per_group=3))
    with pytest.raises(UserError, match=r"at least 3 groups of each class, got 'b' has 2"):
        opened(path)


def test_faults_of_a_table(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"a": 6, "b": 6})
    save(tmp_path / "x.png", picture(1))
    (tmp_path / "x.txt").write_text("")
    faulty = [*rows, rows[0], {"path": "gone.png", "label": "a"}, {"path": "x.txt", "label": "a"}]
    with pytest.raises(UserError, match="3 of 15 lines at fault") as error:
        opened(table(tmp_path / "t.csv", faulty))
    for text in ("a/00.png: listed twice", "gone.png: no such file", "x.txt: no image format"):
        assert text in str(error.value)
    with pytest.raises(UserError, match="a path and a label in each line, got none in line 14"):
        opened(table(tmp_path / "t.csv", [*rows, {"path": "x.png", "label": ""}]))
    with pytest.raises(UserError, match=r"without label.*renaming 'labels'"):
        opened(table(tmp_path / "t.csv", [{"path": r["path"], "labels": r["label"]} for r in rows]))
    with pytest.raises(UserError, match="column split"):
        opened(table(tmp_path / "t.csv", [{**r, "split": "holdout"} for r in rows]))
    with pytest.raises(UserError, match="column split"):
        opened(table(tmp_path / "t.csv", [{**r, "split": "train" if i else ""} for i, r in enumerate(rows)]))
    with pytest.raises(UserError, match="an existing CSV file"):
        opened(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text("path,label\n")
    with pytest.raises(UserError, match="an empty table"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfepath,label\n")
    with pytest.raises(UserError, match="UTF-8"):
        opened(tmp_path / "t.csv")


def test_spreadsheet_mark_and_blank_lines(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"a": 6, "b": 6})
    text = "path, label\n" + "".join(f"{r['path']}, {r['label']}\n\n" for r in rows)
    (tmp_path / "t.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert opened(tmp_path / "t.csv").card.classes == ("a", "b")


def test_the_draw_never_changes() -> None:
    """Published splits depend on this order."""
    assert draw_order(list("abcdef"), 0, "test") == [2, 4, 0, 3, 1, 5]
