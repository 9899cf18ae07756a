from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixlab.studies.run_folder import Locked, RunFolder
from mixlab.training.files import write_atomically


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "pooling-s0-0123456789ab")
    folder.create({"label": "pooling"})
    return folder


def test_a_new_folder_is_pending_and_keeps_what_it_has(run: RunFolder) -> None:
    assert run.state() == "pending"
    run.set_status("failed", message="why")
    run.create({"label": "pooling"})
    assert run.status()["message"] == "why"
    assert run.config() == {"label": "pooling"}


def test_running_without_a_process_is_interrupted(run: RunFolder) -> None:
    run.set_status("running")
    assert run.state() == "interrupted"
    with run.lock():
        assert run.state() == "running"


def test_only_one_process_may_hold_a_run(run: RunFolder) -> None:
    with run.lock(), pytest.raises(Locked), RunFolder(run.path).lock():
        pass
    assert not run.is_locked()


def test_finished_needs_a_summary(run: RunFolder) -> None:
    run.set_status("finished")
    assert run.state() == "interrupted"
    run.write_json("summary.json", {"label": "pooling"})
    assert run.state() == "finished"


def test_metrics_beyond_the_checkpoint_are_dropped_and_torn_lines_too(run: RunFolder) -> None:
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "val/lo')
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    run.keep_metrics(2)
    assert [json.loads(line)["epoch"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, half)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_the_log_of_a_crash_begins_where_python_reports_it(run: RunFolder) -> None:
    run.log.write_text("before\n" * 50 + "Fatal Python error: Segmentation fault\nstack\n")
    assert run.log_tail() == "Fatal Python error: Segmentation fault\nstack"
    run.log.write_text("\n".join(map(str, range(50))))
    assert run.log_tail(2) == "48\n49"
