"""The Triton kernels of local attention: their tests in the interpreter, and whether they compile for a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_triton as triton
from mixlab.ops.local_attention_problem import make_problem

ROOT = Path(__file__).parents[2]
KERNELS = {
    "forward": "forward", "backward_queries": "backward_queries", "backward_keys": "backward_keys",
    "backward_shared": "backward_keys", "backward_bias": "backward_bias",
}  # fmt: skip

needs_triton = pytest.mark.skipif(not triton.INSTALLED, reason="Triton is not installed")


@needs_triton
@pytest.mark.slow
def test_in_the_interpreter() -> None:
    """All of ``tests/ops/interpreted``, in a process that asks for the interpreter before it imports Triton."""
    command = [sys.executable, "-m", "pytest", "tests/ops/interpreted", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.skipif(torch.cuda.is_available() or triton.INTERPRETED, reason="the kernels run here")
def test_refused_without_a_gpu() -> None:
    q = torch.randn(1, 1, 8, 4, 4)
    with pytest.raises(UserError, match="it runs on CUDA devices only, try backend='auto'"):
        local_attention(q, q, q, 3, backend="triton")
    assert triton.unavailable() is not None


class _Launches:
    """Stands for a kernel, and keeps what it was launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self.arguments, self.options = arguments, options

        return launch


TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}


def signature(argument: Any, at: tuple[int, ...], constants: dict[tuple[int, ...], Any]) -> Any:
    """The type that Triton gives an argument at a launch; ones, truths and nothing are constants."""
    if isinstance(argument, Tensor):
        return TYPES[argument.dtype]
    if isinstance(argument, tuple):
        return tuple(signature(a, (*at, i), constants) for i, a in enumerate(argument))
    if isinstance(argument, float):
        return "fp32"
    if type(argument) is int and argument != 1:
        return "i32"
    constants[at] = argument
    return "constexpr"


def options(heads: int, size: tuple[int, ...], dtype: torch.dtype, *, full: bool, shared: bool) -> dict[str, Any]:
    """Arguments of a problem, with everything that a kernel can be given when ``full``."""
    q, k, v = (torch.zeros(2, heads, 16, *size, dtype=dtype, requires_grad=True) for _ in range(3))
    names = ("bias", "scale", "softcap", "extra_kv", "extra_bias")
    found = dict.fromkeys(names) | {"q": q, "k": k, "v": v, "kernel_size": 5, "dilation": 1, "border": "clip"}
    if full:
        extra = torch.zeros(2, heads, *(() if shared else size), 3, 16, dtype=dtype, requires_grad=True)
        found |= {
            "bias": torch.zeros(heads, *(9,) * len(size), requires_grad=True), "border": "shift", "dilation": 2,
            "softcap": 5.0, "extra_kv": (extra, extra), "extra_bias": torch.zeros(3, requires_grad=True),
        }  # fmt: skip
    return found


@needs_triton
@pytest.mark.skipif(triton.INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "full", "shared"),
    [
        (torch.bfloat16, False, True),
        (torch.float32, False, True),
        (torch.float16, True, True),
        (torch.bfloat16, True, False),
    ],
)
def test_compiles_for_a_gpu(
    dtype: torch.dtype, full: bool, shared: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To machine code for compute capability 9.0, as launched: the interpreter takes what the compiler does not."""
    compiler = pytest.importorskip("triton.compiler")
    backend = importlib.import_module("triton.backends.compiler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = {}
    for name, module in KERNELS.items():
        kernels = importlib.import_module(f"mixlab.ops.triton_local_attention.{module}")
        launches[name] = _Launches(getattr(kernels, name))
        monkeypatch.setattr(kernels, name, launches[name])
    out, lse = triton.run(make_problem(**options(2, (6, 7), dtype, full=full, shared=shared), needs_lse=True))
    (out.sum() + lse.sum()).backward()
    launched = {name: launch for name, launch in launches.items() if launch.arguments}
    missing = (set() if full and shared else {"backward_shared"}) | (set() if full else {"backward_bias"})
    assert set(launched) == set(KERNELS) - missing
    for name, launch in launched.items():
        constants: dict[tuple[int, ...], Any] = {}
        given = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
        types = {n: signature(a, (i,), constants) for i, (n, a) in enumerate(given.items())}
        chosen = {n: a for n, a in launch.options.items() if n in launch.kernel.arg_names}
        constants |= {(launch.kernel.arg_names.index(n),): a for n, a in chosen.items()}
        source = compiler.ASTSource(launch.kernel, types | dict.fromkeys(chosen, "constexpr"), constants)
        for_compiler = {n: a for n, a in launch.options.items() if n not in chosen}
        compiled = compiler.compile(source, target=backend.GPUTarget("cuda", 90, 32), options=for_compiler)
        assert len(compiled.asm["cubin"]) > 0, name
        assert compiled.metadata.shared <= 227 * 1024, name
