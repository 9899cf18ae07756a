"""Every backend of local attention against the definition, over random problems and at the edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mixlab.errors import UserError
from mixlab.mixers.local_attention import LocalAttention
from mixlab.ops import local_aggregate, local_attention
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention_choice import choices_made, choose_path, computed_pairs
from tests.ops.problems import choice, compare, random_problem, results, tensors

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BACKENDS = ["auto", "pure", "native", *pure.PATHS]
SEEDS = range(24)


def skip_unsupported(problem: dict[str, Any], backend: str, *, lse: bool = False) -> None:
    try:
        choice(problem, backend, lse=lse)
    except UserError as error:
        pytest.skip(str(error))


def plain(*size: int, dtype: torch.dtype = torch.float32, factor: float = 1.0, batch: int = 2) -> dict[str, Any]:
    q, k, v = (factor * torch.randn(batch, 2, 8, *size, dtype=dtype) for _ in range(3))
    return {"q": q.requires_grad_(), "k": k.requires_grad_(), "v": v.requires_grad_()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_problem(seed: int, backend: str, dtype: torch.dtype) -> None:
    problem = random_problem(seed, dtype, plain=backend == "bands")
    lse = seed % 2 == 0 and backend != "bands"
    skip_unsupported(problem, backend, lse=lse)
    got, want = results(problem, backend, lse=lse), results(problem, "reference", lse=lse)
    assert got["out"].dtype == dtype
    if lse:
        assert got["lse"].dtype == torch.promote_types(dtype, torch.float32)
    compare(got, want, dtype)


@pytest.mark.parametrize("backend", ["reference", "dense", "shift"])
@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(backend: str, border: str, shared: bool) -> None:
    size, kernel = (3, 4), (3, 5)
    shape = kernel if border == "clip" else (5, 9)
    extra = (1, 2, 2, 3) if shared else (1, 2, *size, 2, 3)
    shapes = [(1, 2, 3, *size)] * 3 + [(2, *shape), extra, extra, (2, *size, 2)]
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def call(*t: Tensor) -> Any:
        return local_attention(
            t[0], t[1], t[2], kernel, border=border, bias=t[3], extra_kv=(t[4], t[5]), extra_bias=t[6], softcap=2.0,
            return_lse=True, backend=backend,
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.parametrize("backend", ["auto", "reference", "native", *pure.PATHS])
@pytest.mark.parametrize(
    ("size", "kernel"), [((9,), 17), ((5, 7), (9, 13)), ((3, 4, 2), (5, 7, 3)), ((1, 1), 3), ((1, 6), (3, 11))]
)
def test_a_window_that_covers_the_grid_is_full_attention(size: tuple[int, ...], kernel: Any, backend: str) -> None:
    problem = plain(*size) | {"kernel_size": kernel}
    skip_unsupported(problem, backend)
    q, k, v = (problem[n].flatten(3).transpose(2, 3) for n in "qkv")
    want = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(problem["q"].shape)
    torch.testing.assert_close(local_attention(**problem, backend=backend), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "dense", "shift"])
def test_a_shifted_window_of_the_grids_size_is_full_attention(backend: str) -> None:
    problem = plain(5, 7)
    q, k, v = (problem[n].flatten(3).transpose(2, 3) for n in "qkv")
    want = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(problem["q"].shape)
    for kernel in ((5, 7), (7, 9)):
        out = local_attention(**problem, kernel_size=kernel, border="shift", backend=backend)
        torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("backend", ["reference", "dense", "shift"])
def test_borders_agree_where_none_is_near(backend: str, dilation: int) -> None:
    problem = plain(15, 17) | {"kernel_size": (3, 5), "dilation": dilation}
    bias = torch.randn(2, 5, 9)
    shifted = local_attention(**problem, border="shift", bias=bias, backend=backend)
    clipped = local_attention(**problem, bias=bias[:, 1:4, 2:7], backend=backend)
    y, x = dilation, 2 * dilation
    torch.testing.assert_close(shifted[..., y:-y, x:-x], clipped[..., y:-y, x:-x])
    assert not torch.allclose(shifted, clipped)


@pytest.mark.parametrize("backend", ["auto", "reference", "native", *pure.PATHS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_stay_finite(backend: str, dtype: torch.dtype) -> None:
    """Scores of about ten thousand, in both directions."""
    problem = plain(19, 17, dtype=dtype, factor=60.0) | {"kernel_size": 7, "scale": 1.0}
    skip_unsupported(problem, backend)
    for name, result in results(problem, backend, lse=False).items():
        assert result.isfinite().all(), name


def test_extreme_scores_of_extra_keys_and_biases_stay_finite() -> None:
    for backend in ("reference", "dense", "shift", "auto"):
        problem = plain(9, 8, factor=60.0) | {"kernel_size": 5, "scale": 1.0}
        problem["bias"] = (1e4 * torch.randn(2, 5, 5)).requires_grad_()
        extra = [(60 * torch.randn(2, 2, 3, 8)).requires_grad_() for _ in range(2)]
        problem |= {"extra_kv": tuple(extra), "extra_bias": (1e4 * torch.randn(3)).requires_grad_()}
        for name, result in results(problem, backend).items():
            assert result.isfinite().all(), (backend, name)


@pytest.mark.parametrize("backend", ["auto", "reference", "pure", *pure.PATHS])
def test_an_empty_batch(backend: str) -> None:
    problem = plain(6, 5, batch=0) | {"kernel_size": 3}
    assert local_attention(**problem, backend=backend).shape == (0, 2, 8, 6, 5)


@pytest.mark.parametrize("backend", ["auto", "native", *pure.PATHS])
@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 5, 7), (3, 1, 5)])
def test_anisotropic_windows(backend: str, kernel: tuple[int, ...]) -> None:
    problem = plain(5, 6, 9) | {"kernel_size": kernel}
    skip_unsupported(problem, backend)
    compare(results(problem, backend, lse=False), results(problem, "reference", lse=False), torch.float32)


@pytest.mark.parametrize("backend", ["auto", "reference", "native", *pure.PATHS])
def test_any_memory_layout(backend: str) -> None:
    """Channels last, and every second entry of a longer row."""
    problem = plain(15, 14) | {"kernel_size": 5}
    skip_unsupported(problem, backend)
    want = local_attention(**problem, backend=backend)
    last = {n: t.flatten(1, 2).contiguous(memory_format=torch.channels_last) for n, t in tensors(problem).items()}
    sparse = {n: t.repeat_interleave(2, dim=4)[..., ::2] for n, t in tensors(problem).items()}
    last = {n: t.unflatten(1, (2, 8)) for n, t in last.items()}
    for other in (last, sparse):
        torch.testing.assert_close(local_attention(**(problem | other), backend=backend), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["reference", "native", *pure.PATHS])
def test_scores_of_half_inputs_are_float32(backend: str, dtype: torch.dtype) -> None:
    """Two scores whose difference a half type cannot hold decide which of two values comes out."""
    size = (3, 7)
    problem: dict[str, Any] = {n: torch.zeros(1, 1, 2, *size, dtype=dtype) for n in "qkv"}
    problem |= {"kernel_size": 3, "scale": 1.0}
    problem["q"][:, :, 0] = 255.0
    problem["q"][:, :, 1] = 1.0
    problem["k"][:, :, 0] = 255.0
    problem["k"][..., 1, 1, 3] = 8.0  # 65033 against 65025: the same in either type, where they are finite
    problem["v"][..., 1, 3] = 1.0
    skip_unsupported(problem, backend)
    out = local_attention(**problem, backend=backend)
    assert out[0, 0, 0, 1, 3].item() == pytest.approx(1.0, abs=0.01)


def test_autocast_keeps_scores_in_float32() -> None:
    problem = plain(6, 5) | {"kernel_size": 3}
    for backend in ("reference", "dense", "shift"):
        want = local_attention(**problem, backend=backend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(local_attention(**problem, backend=backend), want, atol=0, rtol=0)


def test_corner_of_a_3x3_window_has_four_keys() -> None:
    q = torch.zeros(1, 1, 1, 5, 5)
    v = torch.zeros(1, 1, 1, 5, 5)
    v[..., 0, 0] = 1.0
    out = local_attention(q, q, v, 3)[0, 0, 0]
    assert out[0, 0].item() == pytest.approx(1 / 4)
    assert out[0, 1].item() == pytest.approx(1 / 6)
    assert out[1, 1].item() == pytest.approx(1 / 9)
    assert out[2, 2].item() == 0.0
    shifted = local_attention(q, q, v, 3, border="shift")[0, 0, 0]
    assert shifted[0, 0].item() == shifted[0, 1].item() == pytest.approx(1 / 9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["auto", "pure", "native"])
@pytest.mark.parametrize("seed", range(8))
def test_aggregate(seed: int, backend: str, dtype: torch.dtype) -> None:
    problem = random_problem(seed, dtype)
    options = {n: problem[n] for n in ("kernel_size", "dilation", "border")}
    v = problem["v"]
    count = 1
    for k in options["kernel_size"]:
        count *= k
    weights = torch.randn(*v.shape[:2], *v.shape[3:], count, dtype=dtype, requires_grad=True)
    try:
        got = local_aggregate(weights, v, **options, backend=backend)
    except UserError as error:
        pytest.skip(str(error))
    want = local_aggregate(weights, v, **options, backend="reference")
    seen = torch.randn_like(want)
    pairs = [(got, want)]
    pairs += zip(*(torch.autograd.grad(y, (weights, v), seen) for y in (got, want)), strict=True)
    for ours, theirs in pairs:
        compare({"out": ours.detach()}, {"out": theirs.detach()}, dtype)


def test_the_choice_is_visible() -> None:
    problem = plain(30, 31) | {"kernel_size": 3}
    out, made = local_attention(**problem, backend="pure", explain=True)
    assert out.shape == problem["q"].shape
    assert (made.backend, made.path) == ("pure", "shift")
    assert set(made.others) == {"reference", "native", "triton", "flex", "natten", "dense", "bands"}
    assert "shifted maps" in str(made)
    assert made in choices_made().values()
    out, lse, made = local_attention(**problem, return_lse=True, explain=True)
    assert lse.shape == (2, 2, 30, 31)
    assert made.backend in ("native", "pure")
    assert choice(plain(4, 4) | {"kernel_size": 7}).path == "dense"  # the windows hold all pairs


def test_a_path_that_cannot_is_replaced() -> None:
    problem = plain(28, 28, batch=1) | {"kernel_size": 7}
    assert choice(problem, "pure").path == "bands"
    made = choice(problem | {"softcap": 5.0}, "pure")
    assert made.path == "shift"
    assert made.others["bands"] == "bands do not support a soft cap"


def test_computed_pairs_follow_the_path() -> None:
    ones = (1, 1)
    assert choose_path((7, 7), (7, 7), ones) == "dense"
    assert computed_pairs((7, 7), (7, 7), ones) == 49**2
    assert choose_path((56, 56), (7, 7), ones) == "shift"
    assert computed_pairs((56, 56), (7, 7), ones) == 56 * 56 * 49
    assert choose_path((28, 28), (7, 7), ones) == "bands"
    assert computed_pairs((28, 28), (7, 7), ones) == 14 * (2 * 28) * (8 * 28)
    assert choose_path((28, 28), (7, 7), ones, "shift") == "shift"
    assert choose_path((20, 20), (21, 21), ones, "shift") == "dense"  # it covers the grid


def test_the_reference_multiplies_what_its_cost_says() -> None:
    mixer, x = LocalAttention(8, head_dim=4, kernel_size=(3, 5), backend="reference"), torch.randn(1, 8, 7, 5)
    with FlopCounterMode(display=False) as counter:
        mixer(x)
    assert counter.get_total_flops() == 2 * mixer.cost((7, 5)).macs_computed


def test_bad_input() -> None:
    problem = plain(5, 5)
    q, k, v = problem["q"], problem["k"], problem["v"]
    extra = torch.zeros(2, 2, 3, 8)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("one shape", {"k": k[..., :4]}),
        ("floating-point", {"q": q.long(), "k": k.long(), "v": v.long()}),
        ("try 3 or 5", {"kernel_size": 4}),
        ("backend", {"backend": "cuda"}),
        ("border", {"border": "wrap"}),
        ("softcap", {"softcap": 0.0}),
        (r"bias: expected shape \(2, 3, 3\)", {"bias": torch.zeros(2, 5, 5)}),
        (r"bias: expected shape \(2, 5, 5\)", {"bias": torch.zeros(2, 3, 3), "border": "shift"}),
        ("without extra_kv", {"extra_bias": torch.zeros(3)}),
        ("extra_kv", {"extra_kv": (extra, extra[:, :, :2])}),
        ("broadcasts to", {"extra_kv": (extra, extra), "extra_bias": torch.zeros(2)}),
        ("at least one head", {n: t[..., :0] for n, t in problem.items()}),
        ("bands do not support a soft cap, try backend='auto'", {"backend": "bands", "softcap": 1.0}),
    ]
    for message, change in cases:
        with pytest.raises(UserError, match=message):
            local_attention(**({"q": q, "k": k, "v": v, "kernel_size": 3} | change))
    with pytest.raises(UserError, match=r"\(B, heads, \*spatial, 9\)"):
        local_aggregate(torch.zeros(2, 2, 5, 5, 8), v, 3)
    with pytest.raises(UserError, match="backend"):
        local_aggregate(torch.zeros(2, 2, 5, 5, 9), v, 3, backend="bands")


@pytest.mark.parametrize("border", ["clip", "shift"])
def test_exports_with_dynamic_sizes(border: str) -> None:
    class Operator(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, extra: Tensor) -> Tensor:
            return local_attention(q, k, v, 3, border=border, bias=bias, extra_kv=(extra, extra), softcap=4.0)

    width = 3 if border == "clip" else 5
    fixed = (torch.randn(2, width, width), torch.randn(1, 2, 4, 8))
    sizes = {3: torch.export.Dim("h", min=3, max=64), 4: torch.export.Dim("w", min=3, max=64)}
    inputs = tuple(torch.randn(3, 1, 2, 8, 9, 7).unbind())
    program = torch.export.export(Operator(), (*inputs, *fixed), dynamic_shapes=(sizes, sizes, sizes, None, None))
    for size in ((9, 7), (4, 13), (20, 30)):
        inputs = tuple(torch.randn(3, 1, 2, 8, *size).unbind())
        torch.testing.assert_close(program.module()(*inputs, *fixed), Operator()(*inputs, *fixed))
