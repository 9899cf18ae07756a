"""The native kernel where the operator's own tests do not look: instruction sets, threads, memory, layouts, graphs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mixlab.errors import UserError
from mixlab.mixers.local_attention import LocalAttention
from mixlab.ops import local_aggregate, local_attention
from mixlab.ops import local_attention_native as native
from mixlab.ops.native import library

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=f"native kernel: {native.unavailable()}")

ISAS = ["avx512", "avx2", "portable"]
TOLERANCES = {torch.float32: 3e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Scratch memory starts as NaN, and the best instruction set is back afterwards."""
    best, library.POISON[0] = native.instruction_set(), 1
    yield
    library.POISON[0] = 0
    native.set_instruction_set(best)


def use(isa: str) -> None:
    if not native.set_instruction_set(isa):
        pytest.skip(f"this machine has no {isa}")


def problem(seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """Larger and odder than the operator's: several vectors a row, many images, two dozen channels."""
    dice = random.Random(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype).requires_grad_()

    axes = dice.choice([1, 2, 2, 3])
    most = {1: 70, 2: 21, 3: 8}[axes]
    size = [dice.randint(1, most) for _ in range(axes)]
    kernel = [dice.choice([1, 3, 5, 7, 9]) for _ in range(axes)]
    border, heads, d = dice.choice(["clip", "clip", "shift"]), dice.randint(1, 3), dice.choice([1, 5, 8, 16, 24, 32])
    batch = dice.randint(1, 6)
    if dice.random() < 0.5:
        q, k, v = (tensor(batch, heads, d, *size) for _ in range(3))
    else:  # views of one channels-last map
        joined = torch.randn(batch, *size, 3, heads, d, dtype=dtype).movedim((-3, -2, -1), (0, 2, 3))
        q, k, v = (t.requires_grad_() for t in joined.unbind(0))
    found: dict[str, Any] = {"q": q, "k": k, "v": v, "kernel_size": kernel, "border": border}
    found["dilation"] = [dice.choice([1, 1, 2, 3]) for _ in range(axes)]
    if dice.random() < 0.5:
        found["bias"] = tensor(heads, *(2 * n - 1 if border == "shift" else n for n in kernel))
    found["softcap"] = dice.choice([None, None, 0.7, 4.0])
    if dice.random() < 0.6:
        grid, entries = dice.choice([[], size]), dice.choice([1, 3, 6, 9])
        found["extra_kv"] = (tensor(batch, heads, *grid, entries, d), tensor(batch, heads, *grid, entries, d))
        found["extra_bias"] = dice.choice([None, tensor(entries), tensor(heads, *size, entries)])
    return found


def leaves(arguments: dict[str, Any]) -> list[Tensor]:
    tensors = [t for t in arguments.values() if isinstance(t, Tensor)]
    return tensors + list(arguments.get("extra_kv", ()))


def everything(arguments: dict[str, Any], backend: str) -> list[Tensor]:
    """Output, log-sum-exp and gradients of both."""
    out, lse = local_attention(**arguments, backend=backend, return_lse=True)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in (out, lse)]
    return [out.detach(), lse.detach(), *torch.autograd.grad([out, lse], leaves(arguments), weights)]


def error(got: list[Tensor], want: list[Tensor]) -> float:
    assert all(torch.isfinite(g).all() for g in got)
    return max((float((g - w).abs().max()) / (1 + float(w.abs().max())) for g, w in zip(got, want, strict=True)))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("isa", ISAS)
def test_random_problem(isa: str, seed: int) -> None:
    use(isa)
    dtype = torch.float64 if seed % 3 == 0 else torch.float32
    arguments = problem(seed, dtype)
    assert error(everything(arguments, "native"), everything(arguments, "reference")) < TOLERANCES[dtype]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize("size", [(17,), (9, 20), (5, 4, 6)])
def test_aggregate(size: tuple[int, ...], border: str, isa: str) -> None:
    use(isa)
    kernel = (5, 3, 3)[: len(size)]
    window = math.prod(kernel)
    last = torch.randn(3, 2, *size, window).requires_grad_()
    first = torch.randn(3, 2, window, *size).movedim(2, -1).requires_grad_()  # as a product over channels gives it
    v = torch.randn(3, 2, 7, *size).requires_grad_()
    for weights in (last, first):
        results = []
        for backend in ("native", "reference"):
            out = local_aggregate(weights, v, kernel, border=border, backend=backend)
            results.append([out.detach(), *torch.autograd.grad(out.square().sum(), [weights, v])])
        assert error(*results) < 3e-5
        assert results[0][1].stride() == weights.stride()


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(border: str, shared: bool) -> None:
    size, heads = (4, 5), 2
    grid = () if shared else size
    bias = (heads, 3, 3) if border == "clip" else (heads, 5, 5)
    shapes = [(2, heads, 3, *size)] * 3 + [bias, *[(2, heads, *grid, 2, 3)] * 2, (heads, *size, 2)]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, ek: Tensor, ev: Tensor, eb: Tensor) -> Any:
        return local_attention(
            q, k, v, 3, border=border, bias=bias, scale=0.7, extra_kv=(ek, ev), extra_bias=eb, return_lse=True,
            backend="native",
        )  # fmt: skip

    torch.autograd.gradcheck(call, inputs)


SHAPES = [(1, 1, 16, 60, 20), (3, 2, 8, 40, 9), (1, 1, 4, 12, 5, 6), (2, 1, 16, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_do_not_change_a_bit(shape: tuple[int, ...]) -> None:
    axes = len(shape) - 3
    q, k, v = (torch.randn(shape).requires_grad_() for _ in range(3))
    token = tuple(torch.randn(*shape[:2], 2, shape[2]).requires_grad_() for _ in range(2))
    bias = torch.randn(shape[1], *(3,) * axes).requires_grad_()
    arguments = {"q": q, "k": k, "v": v, "kernel_size": 3, "bias": bias, "extra_kv": token}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = everything(arguments, "native")
        torch.set_num_threads(3)
        three = everything(arguments, "native")
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert error(one, everything(arguments, "reference")) < 3e-5  # rows were split among tasks


@pytest.mark.parametrize("factor", [1e4, 1e2])
def test_extreme_logits(factor: float) -> None:
    q, k, v = (torch.randn(2, 2, 16, 9, 9) for _ in range(3))
    q, k = (t * (factor / 4) ** 0.5 for t in (q, k))
    arguments = {"q": q.requires_grad_(), "k": k.requires_grad_(), "v": v.requires_grad_(), "kernel_size": 5}
    assert all(torch.isfinite(t).all() for t in everything(arguments, "native"))
    same = local_attention(**arguments, backend="native") - local_attention(**arguments, backend="reference")
    assert same.abs().max() < 1e-2  # float32 rounds a logit of 1e4 by 1e-3


def test_images_do_not_meet() -> None:
    """Rows of several images stand side by side in the kernel; what is not finite stays in its image."""
    q, k, v = (torch.randn(4, 4, 16, 7, 7) for _ in range(3))
    clean = [t.clone().requires_grad_() for t in (q, k, v)]
    k[1, 0, 3, 6, 6], v[2, 1, 0, 0, 0] = math.nan, math.inf
    dirty = [t.clone().requires_grad_() for t in (q, k, v)]
    results = []
    for q, k, v in (clean, dirty):
        out, lse = local_attention(q, k, v, 3, scale=0.25, return_lse=True, backend="native")
        results.append([out, lse, *torch.autograd.grad(out.sum() + lse.sum(), [q, k, v])])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a[[0, 3]], b[[0, 3]], rtol=1e-5, atol=1e-6)
    assert results[1][0].isnan().any()


@pytest.mark.parametrize("shape", [(2, 2, 8, 1, 1), (3, 1, 8, 1, 40), (2, 1, 8, 40, 1), (1, 1, 128, 3, 3)])
def test_edges(shape: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(shape).requires_grad_() for _ in range(3))
    out, lse = local_attention(q, k, v, 7, scale=0.3, return_lse=True, backend="native")
    gradients = torch.autograd.grad(out.sum() + lse.sum(), [q, k, v])
    assert out.shape == shape
    want = local_attention(q, k, v, 7, scale=0.3, backend="reference", return_lse=True)
    expected = torch.autograd.grad(want[0].sum() + want[1].sum(), [q, k, v])
    got = [out.detach(), lse.detach(), *gradients]
    assert error(got, [*(w.detach() for w in want), *expected]) < 3e-5


def test_layout_is_kept() -> None:
    """No permute between a linear layer's map and the kernel, nor after it."""
    q, k, v = torch.randn(2, 6, 5, 3, 2, 8).movedim((-3, -2, -1), (0, 2, 3)).unbind(0)
    out = local_attention(q, k, v, 3, backend="native")
    assert out.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)


def test_refusals() -> None:
    cases = [
        ("head sizes", torch.zeros(1, 1, 129, 2, 2)),
        ("an empty batch", torch.zeros(0, 1, 8, 2, 2)),
    ]
    for words, q in cases:
        with pytest.raises(UserError, match=words):
            local_attention(q, q, q, 3, backend="native")
    with pytest.raises(UserError, match="larger than the grid"):
        local_aggregate(torch.zeros(1, 1, 4, 4, 49), torch.zeros(1, 1, 8, 4, 4), 7, border="shift", backend="native")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = q.new_ones(q.shape[1], 3, 3)
    return local_attention(q, k, v, 3, bias=bias, scale=0.3, backend="native")


class _Seen(TorchDispatchMode):
    """Names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_who_watches_sees_operators() -> None:
    """Plain eager calls go past the dispatcher; a mode, which counts FLOPs perhaps, has what it had."""
    q, k, v = (torch.randn(2, 2, 4, 5, 6, requires_grad=True) for _ in range(3))
    want = attend(q, k, v)
    (gradient,) = torch.autograd.grad(want.sum(), [q])
    with _Seen() as seen:
        got = attend(q, k, v)
        (again,) = torch.autograd.grad(got.sum(), [q])
    assert {"mixlab.local_attention.default", "mixlab.local_attention_backward.default"} <= set(seen.names)
    assert torch.equal(got, want)
    assert torch.equal(again, gradient)


def test_who_watches_the_gradient_only_sees_operators() -> None:
    q, k, v = (torch.randn(2, 2, 4, 5, 6, requires_grad=True) for _ in range(3))
    out, grads = attend(q, k, v), torch.randn(3, 2, 2, 4, 5, 6)
    want = [torch.autograd.grad(out, [q], g, retain_graph=True)[0] for g in grads]
    with _Seen() as seen:
        (got,) = torch.autograd.grad(out, [q], grads[0], retain_graph=True)
    assert "mixlab.local_attention_backward.default" in seen.names
    assert torch.equal(got, want[0])
    (batched,) = torch.autograd.grad(out, [q], grads, is_grads_batched=True, retain_graph=True)
    assert torch.equal(batched, torch.stack(want))
    (none,) = torch.autograd.grad(out, [q], torch._efficientzerotensor(out.shape))
    assert not none.any()


def test_negated_views() -> None:
    """Tensors whose values lie negated in memory."""
    parts = torch.randn(3, 2, 2, 4, 5, 6), torch.randn(3, 2, 2, 4, 5, 6)
    q, k, v = torch.complex(*parts).conj().imag
    assert q.is_neg()
    assert torch.equal(attend(q, k, v), attend(q.clone(), k.clone(), v.clone()))


def test_no_second_derivative() -> None:
    q, k, v = (torch.randn(1, 1, 4, 5, 6, requires_grad=True) for _ in range(3))
    (gradient,) = torch.autograd.grad(attend(q, k, v).square().sum(), [q], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck looks at tensors that are not leaves
def test_operators() -> None:
    q, k, v = (torch.randn(2, 2, 4, 5, 6, requires_grad=True) for _ in range(3))
    extra = torch.randn(2, 2, 1, 4, requires_grad=True)
    torch.library.opcheck(native._attend, (q, k, v, [3, 3], [1, 1], False, 0.5, 0.0, None, None, None, None))
    torch.library.opcheck(native._attend, (q, k, v, [3, 3], [1, 1], True, 0.5, 2.0, None, extra, extra, None))
    weights = torch.randn(2, 2, 5, 6, 9, requires_grad=True)
    torch.library.opcheck(native._aggregate, (weights, v, [3, 3], [1, 1], False))


def test_auto_is_native_in_a_compiled_graph_and_portable_in_an_exported_one() -> None:
    torch._dynamo.reset()
    found: list[str] = []

    def look(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        found.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    mixer, x = LocalAttention(32, kernel_size=5), torch.randn(2, 32, 13, 17)
    compiled: Callable[..., tuple[Tensor, None]] = torch.compile(mixer, backend=look, fullgraph=True)
    assert torch.allclose(compiled(x)[0], mixer(x)[0], atol=1e-6)
    assert any("local_attention" in name for name in found)
    program = torch.export.export(mixer, (x,))
    assert "mixlab" not in str(program.graph)


def test_compile() -> None:
    torch._dynamo.reset()
    compiled: Callable[..., Tensor] = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for size in ((5, 6), (9, 7)):
        q, k, v = (torch.randn(2, 2, 4, *size, requires_grad=True) for _ in range(3))
        got, want = compiled(q, k, v), attend(q, k, v)
        assert torch.equal(got, want)
        gradients = [torch.autograd.grad(y.square().sum(), [q, k, v]) for y in (got, want)]
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


class _Module(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v)


def test_export_with_dynamic_sizes() -> None:
    batch, height, width = (torch.export.Dim(n, min=2, max=64) for n in ("batch", "height", "width"))
    shapes = ({0: batch, 3: height, 4: width},) * 3
    q, k, v = (torch.randn(3, 2, 4, 8, 10) for _ in range(3))
    program = torch.export.export(_Module(), (q, k, v), dynamic_shapes=shapes)
    q, k, v = (torch.randn(5, 2, 4, 6, 9) for _ in range(3))
    assert torch.equal(program.module()(q, k, v), attend(q, k, v))
