"""The record of what computed local attention."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mixlab.ops import local_attention, local_attention_choice
from mixlab.ops import local_attention_native as native
from mixlab.ops.native import library
from mixlab.studies import plan
from mixlab.studies.backends import choices_text, describe_choices, fallback_events
from mixlab.studies.report import build_report
from tests.studies.fake_study import FakeStudy, write_study
from tests.studies.small import study


@pytest.fixture(autouse=True)
def _nothing_chosen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_attention_choice, "_CHOICES", OrderedDict())


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An installation whose native kernel was not built."""
    monkeypatch.setattr(library, "LIBRARY", tmp_path)
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def attend(side: int, *, batch: int = 2, **options: str) -> None:
    q = torch.randn(batch, 3, 8, side, side)
    local_attention(q, q, q, 3, **options)  # type: ignore[call-overload]


@pytest.mark.usefixtures("no_kernel")
def test_each_kind_of_problem_is_one_entry() -> None:
    assert describe_choices() == []
    for batch in (1, 2, 2):
        attend(4, batch=batch)
    attend(5, backend="shift")
    first, second = describe_choices()
    assert first["problem"] == "4 x 4, window 3 x 3, head size 8, float32 on cpu"
    assert (first["computed_by"], first["asked"]) == ("pure, dense", "auto")
    assert set(first["not"]) >= {"native", "bands", "shift", "reference"}
    assert second["problem"].startswith("5 x 5, ")
    assert (second["computed_by"], second["asked"], second["because"]) == ("pure, shift", "shift", "asked for")
    assert json.loads(json.dumps([first, second])) == [first, second]


@pytest.mark.skipif(native.unavailable() is not None, reason=f"native kernel: {native.unavailable()}")
def test_the_native_kernels_instruction_set_is_named() -> None:
    attend(14, backend="native")
    assert [c["computed_by"] for c in describe_choices()] == [f"native ({native.instruction_set()})"]
    assert fallback_events(describe_choices()) == []


def test_a_missing_native_kernel_is_an_event(no_kernel: None) -> None:
    assert fallback_events(describe_choices()) == []  # nothing was computed
    attend(14, backend="pure")
    assert fallback_events(describe_choices()) == []  # as asked
    attend(14)
    (event,) = fallback_events(describe_choices())
    assert event["kind"] == "backend"
    assert event["message"].startswith("local attention computed in plain PyTorch: no C++ compiler worked")


def test_backends_do_not_enter_the_hash(images: Path, tmp_path: Path) -> None:
    config = study(images, ["local_attention"])
    before = [run.folder.name for run in plan.make_plan(config.runs(), tmp_path, "cpu").runs]
    attend(14)
    attend(14, backend="shift")
    assert [run.folder.name for run in plan.make_plan(config.runs(), tmp_path, "cpu").runs] == before


def test_the_report_shows_what_computed(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study", FakeStudy(labels=("identity", "local_attention-k3"), cases=40))
    text = build_report(path).read_text(encoding="utf-8")
    assert "native (avx512): 14 x 14, 7 x 7; pure, dense: 4 x 4" in text
    assert "not used" in text
    assert "<th>local_attention</th>" in text
    for file in path.glob("runs/*/environment.json"):  # of an earlier version
        environment = json.loads(file.read_text())
        del environment["local_attention"]
        file.write_text(json.dumps(environment))
    assert "<th>local_attention</th>" not in build_report(path).read_text(encoding="utf-8")


def test_a_record_that_holds_something_else_does_not_break_the_report() -> None:
    assert choices_text(None) == "not used"
    assert choices_text([{"problem": "3 x 3, window 3 x 3"}]) == "?: 3 x 3"
