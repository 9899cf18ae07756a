"""What is found while a study is planned, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixlab.errors import UserError
from mixlab.studies.grid import StudyConfig
from mixlab.studies.plan import Plan, make_plan
from mixlab.studies.run import train_run
from mixlab.training.machine import Machine

DIGITS: dict[str, Any] = {"mixers": ["identity"], "seeds": 1, "model": {"name": "metaformer_nano"}}


def planned(out: Path, **plain: Any) -> Plan:
    return make_plan(StudyConfig.of({**DIGITS, **plain}).runs(), out, "cpu")


def test_two_runs_that_the_report_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    data = [{"name": "digits", "train_per_class": 10}, {"name": "digits", "train_per_class": 50}]
    words = r"label identity-digits \(seed 0\): .*data.train_per_class 10 and 50, try one study each"
    with pytest.raises(UserError, match=words):
        planned(tmp_path, data=data)


def test_a_file_of_the_user_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("x = 1\n")
    (run,) = planned(tmp_path, imports=[str(mine)]).runs
    mine.write_text("x = 2\n")
    with pytest.raises(UserError, match=r"mine.py: changed since this run was planned"):
        train_run(run, Machine())
    assert not run.folder.checkpoints.exists()


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("")
    with pytest.raises(UserError, match=r"imports: expected files of different names.*to rename one"):
        planned(tmp_path, imports=[str(tmp_path / "a" / "mine.py"), str(tmp_path / "b" / "mine.py")])


def test_each_message_of_the_data_is_kept_once(tmp_path: Path) -> None:
    found = planned(tmp_path, data={"name": "digits", "folds": 2}).events
    assert sum("digits has no official split here" in message for message in found) == 1
