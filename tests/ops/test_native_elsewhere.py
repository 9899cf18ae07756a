"""The native kernel as other machines compile it: without OpenMP, and for 64-bit Arm, where an emulator runs it.

A small program takes calls of the library over its standard input, so that the tests of this machine's kernel are those
of another's. For Arm (Debian): ``apt install g++-aarch64-linux-gnu qemu-user-static``.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mixlab.ops import local_aggregate
from mixlab.ops import local_attention_native as native
from mixlab.ops.native import library
from tests.ops.test_native import TOLERANCES, everything, problem

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=f"native kernel: {native.unavailable()}")

SOURCES = Path(native.__file__).parent / "native"
MACHINES = {"no OpenMP": (["g++"], []), "Arm": (["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64-static"])}
ENTRIES = {"ek", "ev", "eb", "dek", "dev", "deb"}  # views whose last axis is the extra keys


@pytest.fixture(scope="module", params=list(MACHINES))
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compiled program of one of them."""
    compiler, emulator = MACHINES[request.param]
    for tool in (compiler[0], *emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
    program = tmp_path_factory.mktemp("elsewhere") / "program"
    sources = [SOURCES / "dispatch.cpp", SOURCES / "kernel_portable.cpp", Path(__file__).with_suffix(".cpp")]
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-pthread", f"-I{SOURCES}"]
    subprocess.run([*compiler, *flags, *map(str, sources), "-o", str(program)], check=True)
    return [*emulator, str(program)]


def extent(name: str, words: tuple[int, ...], view: tuple[int, ...]) -> int:
    """Elements from a view's first to its last."""
    batch, heads, d = words[1:4]
    size, kernel, shift, extra = words[4:7], words[7:10], words[13], words[14]
    if name in ("bias", "dbias"):
        return heads * math.prod(2 * k - 1 if shift else k for k in kernel)
    last = extra if name in ENTRIES else math.prod(kernel) if name in ("w", "dw") else 1
    axes = (batch, heads, d, *size, last)
    return 1 + sum((n - 1) * stride for n, stride in zip(axes, view[1:], strict=True))


def calls_of(command: list[str]) -> Callable[[str, bytes], None]:
    """``library.call`` on the other machine."""

    def call(function: str, packed: bytes) -> None:
        words = library.PROBLEM.unpack(packed)
        views = {name: words[20 + 8 * i : 28 + 8 * i] for i, name in enumerate(library.VIEWS)}
        item = 8 if words[0] else 4
        present = {n: (view[0], item * extent(n, words, view)) for n, view in views.items() if view[0]}
        sent = [struct.pack("q", function == "mixlab_backward"), packed, struct.pack("q", len(present))]
        for name, (address, size) in present.items():
            sent += [struct.pack("2q", library.VIEWS.index(name), size), ctypes.string_at(address, size)]
        done = subprocess.run(command, input=b"".join(sent), stdout=subprocess.PIPE, check=True).stdout
        assert len(done) == sum(size for _, size in present.values())
        for address, size in present.values():
            ctypes.memmove(address, done[:size], size)
            done = done[size:]

    return call


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("seed", range(15))
def test_attention(command: list[str], monkeypatch: pytest.MonkeyPatch, seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    arguments = problem(seed, dtype)
    monkeypatch.setattr(library, "POISON", [1])
    wanted = everything(arguments, "reference")
    monkeypatch.setattr(native, "call", calls_of(command))
    for found, want in zip(everything(arguments, "native"), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=TOLERANCES[dtype], rtol=20 * TOLERANCES[dtype])


def test_aggregate(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weights = torch.randn(2, 3, 7, 19, 15, requires_grad=True)
    v = torch.randn(2, 3, 5, 7, 19, requires_grad=True)
    grad = torch.randn_like(v)
    results = []
    for backend in ("reference", "native"):
        out = local_aggregate(weights, v, (3, 5), backend=backend)
        results.append((out, *torch.autograd.grad(out, (weights, v), grad)))
        monkeypatch.setattr(native, "call", calls_of(command))
    for found, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, want, atol=3e-5, rtol=1e-4)
