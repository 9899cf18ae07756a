"""``mixlab doctor``, here and on machines that lack things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.cli import doctor_check, main
from mixlab.ops import local_attention_native as native
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention_choice import backend_status
from mixlab.ops.native import library


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An installation whose native kernel was not built."""
    monkeypatch.setattr(library, "LIBRARY", tmp_path)
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out = doctor(capsys, "--json", *words)
    return code, json.loads(out)


def test_it_tells_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(capsys)
    assert (code, found["broken"]) == (0, [])
    assert found["mixlab"]["version"] == metadata.version("mixlab")
    assert found["torch"]["version"] == torch.__version__
    assert found["cpu"]["threads"] == torch.get_num_threads()
    assert found["backends"] == backend_status()
    assert {name: row["version"] for name, row in found["requirements"].items()}["rich"] == metadata.version("rich")
    assert set(found["extras"]) == set(metadata.metadata("mixlab").get_all("Provides-Extra") or [])
    assert list(found["extras"]["medical"]["packages"]) == ["nibabel", "pydicom"]
    code, text = doctor(capsys)
    assert code == 0
    titles = ("installation", "devices", "native kernel", "local attention", "extras", "data folders")
    assert [t for t in titles if any(line.startswith(t) for line in text.splitlines())] == list(titles)


@pytest.mark.skipif(native.unavailable() is not None, reason=f"native kernel: {native.unavailable()}")
def test_the_native_kernel_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)[1]["native"]
    assert Path(found["library"]).is_file()
    assert (found["reason"], found["instruction_set"]) == (None, native.instruction_set())
    if sys.platform == "linux":
        assert "GCC" in found["compiler"] or "clang" in found["compiler"]


def test_a_machine_without_the_native_kernel(capsys: pytest.CaptureFixture[str], no_kernel: None) -> None:
    code, found = facts(capsys, "--check")
    assert code == 0
    assert found["native"]["library"] is found["native"]["instruction_set"] is None
    assert found["native"]["reason"] == found["backends"]["native"] != ""
    assert "native" not in {row["backend"] for row in found["check"]}
    code, text = doctor(capsys)
    assert code == 0
    assert text.count("python -m mixlab.ops.native.build") == 2  # of the kernel, and of the backend
    assert "not here: no C++ compiler worked" in text


def test_check_compares_every_usable_backend_with_the_definition(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(capsys, "--check")
    assert code == 0
    rows = {row["backend"]: row for row in found["check"] if row["device"] == "cpu"}
    assert set(rows) >= {"reference", *pure.PATHS}
    assert ("native" in rows) == (backend_status()["native"] is None)
    for name in ("reference", "dense", "shift"):
        row = rows[name]
        # Of float32: more than nothing, which would mean that nothing was compared, and less than what it may.
        assert 0 < row["forward"] < doctor_check.TOLERANCE > row["gradient"] > 0
        assert (row["bad"], row["refused"]) == (False, [])
    assert rows["bands"]["refused"]
    assert "2 of 8 problems" in rows["bands"]["says"]
    assert "forward differs by" in doctor(capsys, "--check")[1]


def broken_path(kind: str) -> Any:
    """The dense path with a fault."""
    dense = pure.PATHS["dense"]

    def faulty(problem: Any) -> tuple[Tensor, Tensor | None]:
        if kind == "error":
            raise RuntimeError("out of registers")
        out, lse = dense(problem)
        if kind == "nan":
            return out * torch.nan, lse
        if kind == "gradient":
            return out * 2 - out.detach(), lse
        return out * 1.001, lse

    return faulty


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("scale", "more than the 1e-04 that float32 may"),
        ("gradient", "more than the 1e-04 that float32 may"),
        ("nan", "FloatingPointError: forward is not finite"),
        ("error", "RuntimeError: out of registers"),
    ],
)
def test_a_wrong_backend_is_found(
    kind: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pure.PATHS, "dense", broken_path(kind))
    code, found = facts(capsys, "--check")
    assert code == 1
    assert [row["backend"] for row in found["check"] if row["bad"]] == ["dense"]
    assert len(found["broken"]) == 1
    assert found["broken"][0].startswith("dense on cpu: ")
    assert says in found["broken"][0]


def test_a_backend_that_says_usable_and_refuses_everything_is_bad(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_kernel: None
) -> None:
    monkeypatch.setattr(doctor_check, "backend_status", lambda: {"native": None})
    code, found = facts(capsys, "--check")
    assert code == 1
    assert "no C++ compiler worked" in found["broken"][0]


def test_missing_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without(name: str) -> str:
        if name in ("timm", "onnx"):
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "pydicom" else version(name)

    monkeypatch.setattr(metadata, "version", without)
    code, text = doctor(capsys)
    assert code == 0  # extras
    assert "without timm (not installed): pip install 'mixlab[timm]'" in text
    assert "without onnx (not installed): pip install 'mixlab[export]'" in text
    assert "without pydicom (expected >=3, got 0.1): pip install 'mixlab[medical]'" in text
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "lightning" else version(name))
    code, text = doctor(capsys)
    assert code == 1
    assert "broken: lightning: expected >=2.5.5, got 0.1" in text


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')\n")
    command = [sys.executable, "-m", "mixlab.cli", "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    for words in ([], ["--check"]):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "broken: torch: cannot be imported: OSError: libgomp.so.1" in done.stdout
        assert done.stderr == ""


def test_accelerators_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = SimpleNamespace(name="NVIDIA H200", total_memory=140 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    told = facts(capsys)[1]["accelerators"]
    assert told["cuda"] == {"devices": ["NVIDIA H200, 140 GiB"], "reason": None}
    assert told["mps"]["devices"] == []
    assert told["mps"]["reason"]


def test_why_there_is_no_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warns() -> bool:
        import warnings

        warnings.warn("the NVIDIA driver on your system is too old (Triggered internally at a.cpp:1)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warns)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert facts(capsys)[1]["accelerators"]["cuda"]["reason"] == "the NVIDIA driver on your system is too old"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert "built without CUDA" in facts(capsys)[1]["accelerators"]["cuda"]["reason"]
