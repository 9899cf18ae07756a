"""The native library's passes over maps against the tensor operations that define them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.mixers.local_attention import LocalAttention
from mixlab.ops import local_attention_native as native
from mixlab.ops import mlp as mlp_module
from mixlab.ops.mlp import mlp
from mixlab.ops.native import passes as calls
from mixlab.ops.passes import add_scaled, group_norm, pool
from mixlab.ops.pointwise import pointwise, pointwise_from_planar, pointwise_planar

pytestmark = pytest.mark.skipif(calls.unavailable() is not None, reason=f"native library: {calls.unavailable()}")

SHAPES = [(2, 5, 7), (3, 64, 12, 10), (1, 1, 4, 4), (2, 37, 5, 9), (2, 6, 3, 4, 5), (4, 16, 1, 1), (2, 3, 70, 2)]
TOLERANCES = {torch.float32: 5e-6, torch.float64: 1e-12}
Operation = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    best, runs, threads = native.instruction_set(), (mlp_module.RUN_BYTES, mlp_module.RUN_ROWS), torch.get_num_threads()
    yield
    calls.ENABLED[0] = True
    native.set_instruction_set(best)
    mlp_module.RUN_BYTES, mlp_module.RUN_ROWS = runs
    torch.set_num_threads(threads)


def innermost(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A random map whose channels lie innermost."""
    return torch.randn(shape[0], *shape[2:], shape[1], dtype=dtype).movedim(-1, 1)


def operations(shape: Sequence[int], dtype: torch.dtype) -> dict[str, tuple[Operation, list[Tensor]]]:
    """Every pass with inputs that have gradients."""
    axes, channels = len(shape) - 2, shape[1]
    x, y = innermost(shape, dtype) + 3, innermost(shape, dtype)
    w, b, keep = torch.randn(channels, dtype=dtype), torch.randn(channels, dtype=dtype), torch.rand(shape[0]).to(dtype)
    found: dict[str, tuple[Operation, list[Tensor]]] = {
        "norm": (group_norm, [x, w, b]),
        "norm without bias": (lambda x, w: group_norm(x, w, None, 1e-3), [x, w]),
        "residual": (add_scaled, [x, y, w]),
        "residual with keep": (lambda x, y, w: add_scaled(x, y, w, keep), [x, y, w]),
    }
    for kernel in ((3,) * axes, (5,) * axes, (9,) * axes, (*(1,) * (axes - 1), 3)):
        found[f"pool {kernel}"] = (lambda x, k=kernel: pool(x, k), [x])
        found[f"mean {kernel}"] = (lambda x, k=kernel: pool(x, k, subtract=False), [x])
    return found


def results(call: Operation, inputs: list[Tensor], grad: Tensor, enabled: bool) -> list[Tensor]:
    """The output and all gradients."""
    calls.ENABLED[0] = enabled
    own = [t.detach().clone().requires_grad_() for t in inputs]
    assert calls.takes(own[0]) == enabled
    out = call(*own)
    return [out.detach(), *torch.autograd.grad(out, own, grad)]


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("shape", SHAPES)
def test_passes_equal_the_tensor_operations(shape: Sequence[int], dtype: torch.dtype, isa: str) -> None:
    if not native.set_instruction_set(isa):
        pytest.skip(f"this machine has no {isa}")
    grad = innermost(shape, dtype)
    for name, (call, inputs) in operations(shape, dtype).items():
        wanted = results(call, inputs, grad, enabled=False)
        for want, got in zip(wanted, results(call, inputs, grad, enabled=True), strict=True):
            scale = max(float(want.abs().max()), 1.0)
            torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCES[dtype] * scale, msg=name)


def test_the_norm_is_exact_where_the_mean_is_large() -> None:
    """A sum of squares would lose all digits of a deviation of 1 around 1000."""
    x, w = innermost((2, 8, 20, 20)) + 1000, torch.ones(8)
    want = F.group_norm(x.double(), 1, w.double()).float()
    torch.testing.assert_close(group_norm(x, w, None), want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 5, 3, 4), (1, 2, 3, 2, 3)])
def test_gradients_of_gradients(shape: Sequence[int]) -> None:
    for call, inputs in operations(shape, torch.float64).values():
        own = [t.detach().requires_grad_() for t in inputs]
        assert calls.takes(own[0])
        assert torch.autograd.gradcheck(call, own)
        assert torch.autograd.gradgradcheck(call, own)


def test_no_result_depends_on_the_number_of_threads() -> None:
    shape = (2, 48, 30, 30)
    grad = innermost(shape)
    for call, inputs in operations(shape, torch.float32).values():
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(call, inputs, grad, enabled=True))
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in forward mode
def test_other_layouts_types_and_transforms_take_the_tensor_operations() -> None:
    x = innermost((2, 4, 5, 6))
    assert calls.takes(x)
    assert not calls.takes(x.contiguous())
    assert not calls.takes(x.half())
    assert not calls.takes(x[:, 1:])
    assert not calls.takes(x[:0])
    assert not calls.takes(x.to("meta"))
    assert not calls.takes(x, torch.zeros(4).double())
    with torch.autocast("cpu"):
        assert not calls.takes(x)
    w, each = torch.ones(4), torch.randn(3, 2, 4, 5, 6)
    torch.testing.assert_close(
        torch.vmap(lambda t: group_norm(t, w, None))(each), torch.stack([group_norm(t, w, None) for t in each])
    )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        tangent = torch.autograd.forward_ad.unpack_dual(pool(dual, (3, 3))).tangent
    torch.testing.assert_close(tangent, pool(x, (3, 3)))


class _Watcher(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_tensor_operations_in_the_backward_pass_too() -> None:
    shape = (2, 4, 5, 6)
    grad = innermost(shape)
    for name, (call, inputs) in operations(shape, torch.float32).items():
        want = results(call, inputs, grad, enabled=True)
        own = [t.detach().clone().requires_grad_() for t in inputs]
        out = call(*own)
        with _Watcher() as watcher:
            got = torch.autograd.grad(out, own, grad)
        assert watcher.seen, name
        for a, b in zip(got, want[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_graphs_hold_tensor_operations() -> None:
    x, w = innermost((2, 4, 5, 6)), torch.ones(4)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return add_scaled(x, pool(group_norm(x, w, None), (3, 3)), w)

    program = torch.export.export(Net(), (x,))
    torch.testing.assert_close(program.module()(x), Net()(x))


# --- The MLP.


def layers(channels: int, hidden: int, bias: bool) -> list[Tensor | None]:
    return [
        torch.randn(hidden, channels) / channels**0.5, torch.randn(hidden) if bias else None,
        torch.randn(channels, hidden) / hidden**0.5, torch.randn(channels) if bias else None,
    ]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "rows"), [((2, 5, 7, 9), 8), ((3, 32, 11), 5), ((1, 3, 2, 3, 4), 100)])
def test_the_mlp_in_runs(shape: Sequence[int], rows: int, bias: bool) -> None:
    mlp_module.RUN_BYTES, mlp_module.RUN_ROWS = 1, rows
    x, grad = innermost(shape), innermost(shape)
    given = [x, *layers(shape[1], 4 * shape[1] + 3, bias)]
    own = [t if t is None else t.clone().requires_grad_() for t in given]
    wide = [t if t is None else t.double().requires_grad_() for t in given]
    out = mlp(*own)  # type: ignore[arg-type]
    assert out is not None
    want = _by_definition(*wide)  # type: ignore[arg-type]
    torch.testing.assert_close(out, want.float(), rtol=0, atol=5e-6)
    got = torch.autograd.grad(out, [t for t in own if t is not None], grad)
    for a, b in zip(got, torch.autograd.grad(want, [t for t in wide if t is not None], grad.double()), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=2e-5)
    with torch.inference_mode():
        again = mlp(*given)  # type: ignore[arg-type]
    assert again is not None
    torch.testing.assert_close(again, out.detach())


def _by_definition(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    return pointwise(F.gelu(pointwise(x, w1, b1)), w2, b2)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_gelu_everywhere(isa: str) -> None:
    if not native.set_instruction_set(isa):
        pytest.skip(f"this machine has no {isa}")
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([-1e30, -100.0, 100.0, 1e30, 0.0])])
    rows, grad = x.reshape(-1, 1).expand(-1, 3).contiguous(), torch.ones(len(x), 3)
    found, derivative, sums = torch.empty_like(rows), torch.empty_like(rows), torch.empty(3)
    calls.run("gelu", rows, (rows, None), (found,))
    wide = rows.double().requires_grad_()
    want = F.gelu(wide)
    assert torch.isfinite(found).all()
    assert ((found - want).abs() <= 3e-7 * wide.abs().clamp(min=1)).all()
    calls.run("gelu_backward", rows, (rows, None, grad), (derivative, sums))
    (slope,) = torch.autograd.grad(want, wide, grad.double())
    torch.testing.assert_close(derivative, slope.float(), rtol=0, atol=5e-7)
    torch.testing.assert_close(sums.double(), slope.sum(0), rtol=1e-5, atol=0)


def test_second_derivatives_of_the_mlp() -> None:
    x = innermost((1, 3, 2, 2))
    given = [x, *layers(3, 5, True)]

    def curvature(call: Callable[..., Any], inputs: list[Any]) -> Tensor:
        own = [t.clone().requires_grad_() for t in inputs]
        (first,) = torch.autograd.grad(call(*own).square().sum(), own[0], create_graph=True)
        return torch.autograd.grad(first.square().sum(), own[1])[0]

    torch.testing.assert_close(curvature(mlp, given), curvature(_by_definition, given), rtol=1e-4, atol=1e-4)


def test_threads_do_not_share_their_memory() -> None:
    mlp_module.RUN_ROWS, mlp_module.RUN_BYTES = 64, 1
    inputs = [[innermost((2, 16, 20, 20)), *layers(16, 64, True)] for _ in range(4)]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        with torch.inference_mode():
            for _ in range(5):
                out = mlp(*inputs[i])  # type: ignore[arg-type]
                assert out is not None
                found[i] = out

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, given in enumerate(inputs):
        torch.testing.assert_close(found[i], _by_definition(*given), rtol=0, atol=5e-6)  # type: ignore[arg-type]


def _note(seen: list[str], name: str, *_: Any) -> None:
    seen.append(name)


def test_watched_layers_of_an_mlp_are_called() -> None:
    x = innermost((2, 8, 5, 5))
    for name in ("fc1", "act", "fc2"):
        module = CHANNEL_MIXERS.build("mlp", 8)
        seen: list[str] = []
        module.get_submodule(name).register_full_backward_hook(partial(_note, seen, name))
        module(x.requires_grad_()).sum().backward()
        assert seen == [name]


# --- Layouts between a projection and the native kernel.


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_turns_its_map(bias: bool) -> None:
    x, w, b = innermost((2, 5, 4, 6), torch.float64), torch.randn(7, 5).double(), torch.randn(7).double()
    given = [x, w, b] if bias else [x, w]
    for call, source in ((pointwise_planar, x), (pointwise_from_planar, x.contiguous())):
        given[0] = source
        own = [t.detach().clone().requires_grad_() for t in given]
        out = call(*own)
        torch.testing.assert_close(out, pointwise(*given))
        assert torch.autograd.gradcheck(call, own)
    assert pointwise_planar(*[x, *given[1:]]).is_contiguous()
    assert calls.innermost(pointwise_from_planar(*given))


def test_local_attention_is_the_same_in_both_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = LocalAttention(32, kernel_size=5, qkv_bias=True)
    x, grad = innermost((2, 32, 17, 18)), innermost((2, 32, 17, 18))
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr("mixlab.mixers.local_attention.PLANAR_POSITIONS", least)
        own = x.clone().requires_grad_()
        out, _ = mixer(own)
        assert mixer._planar(own) == (least == 1)
        assert calls.innermost(out)
        found.append([out, *torch.autograd.grad(out, [own, *mixer.parameters()], grad)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
