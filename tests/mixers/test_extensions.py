"""Extensions of local attention: each alone, all together, with global tokens, against the naive loop."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.mixers import mixer_info
from mixlab.mixers.attention import Attention
from mixlab.mixers.local_attention import LocalAttention
from mixlab.ops import local_attention_native as native
from tests.mixers.naive.base import Counter
from tests.mixers.naive.local_attention import attend

ALL: dict[str, Any] = {"slopes": 0.3, "relative_bias": True, "qk_norm": True, "softcap": 2.0}
SINGLE: list[dict[str, Any]] = [{}, *({name: value} for name, value in ALL.items())]
BORDERS = ("clip", "shift")
DIM, HEAD = 12, 2  # six heads: every direction of 3D


def build(spatial_dims: int = 2, **options: Any) -> LocalAttention:
    """Small, in float64, with parameters that are drawn."""
    mixer = LocalAttention(DIM, spatial_dims=spatial_dims, head_dim=HEAD, **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer


def data(spatial_dims: int, tokens: int) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(1, DIM, *{1: (5,), 2: (4, 3), 3: (2, 3, 2)}[spatial_dims], dtype=torch.float64)
    return x, torch.randn(1, tokens, DIM, dtype=torch.float64) if tokens else None


def compare(spatial_dims: int, tokens: int, **options: Any) -> None:
    mixer, (x, given) = build(spatial_dims, **options), data(spatial_dims, tokens)
    count = Counter()
    empty = torch.zeros(DIM, 0, dtype=torch.float64)
    want, want_tokens = attend(mixer, x[0].numpy(), (empty if given is None else given[0].t()).numpy(), count)
    got, got_tokens = mixer(x, given)
    torch.testing.assert_close(got[0].detach(), torch.from_numpy(want))
    if given is None:
        assert got_tokens is None
    else:
        torch.testing.assert_close(got_tokens[0].t().detach(), torch.from_numpy(want_tokens))
    cost = mixer.cost(tuple(x.shape[2:]), tokens)
    assert cost.macs_needed == count.macs
    assert cost.other_ops == count.other
    assert cost.activations == count.written
    assert cost.parameters == sum(p.numel() for p in mixer.parameters())
    assert cost.macs_needed <= min(cost.macs_computed, cost.macs_dense)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("options", SINGLE, ids=lambda o: "-".join(o) or "none")
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_each_alone_and_with_tokens(spatial_dims: int, options: dict[str, Any], border: str) -> None:
    for tokens in (0, 2):
        compare(spatial_dims, tokens, border=border, **options)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_all_together(spatial_dims: int, border: str) -> None:
    for tokens, dilation in itertools.product((0, 1, 3), (1, 2)):
        compare(spatial_dims, tokens, border=border, dilation=dilation, subtract_input=True, qkv_bias=True, **ALL)


@pytest.mark.parametrize("pair", list(itertools.combinations(ALL, 2)), ids="+".join)
def test_pairs(pair: tuple[str, str]) -> None:
    compare(2, 1, kernel_size=(3, 5), **{name: ALL[name] for name in pair})


@pytest.mark.parametrize("backend", ["reference", "pure", "dense", "shift", "auto"])
@pytest.mark.parametrize("border", BORDERS)
def test_backends_agree(backend: str, border: str) -> None:
    """On a grid large enough for the layouts that the native kernel likes."""
    options = {**ALL, "border": border, "kernel_size": 5, "qkv_bias": True}
    reference = build(backend="reference", **options)
    x, tokens = torch.randn(2, DIM, 17, 19, dtype=torch.float64), torch.randn(2, 2, DIM, dtype=torch.float64)
    mixer = build(backend=backend, **options)
    mixer.load_state_dict(reference.state_dict())
    single = backend == "auto"  # float32 takes the turned layout
    if single:
        mixer = mixer.float()
        assert mixer._planar(x.float()) == (native.unavailable() is None)
    found = []
    for module, dtype in ((reference, torch.float64), (mixer, torch.float32 if single else torch.float64)):
        leaves = [x.to(dtype).requires_grad_(), tokens.to(dtype).requires_grad_()]
        y, t = module(*leaves)
        grads = torch.autograd.grad(y.square().sum() + t.square().sum(), [*leaves, *module.parameters()])
        found.append([z.detach().double() for z in (y, t, *grads)])
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3 if single else 1e-7, atol=1e-3 if single else 1e-7)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_gradients(spatial_dims: int) -> None:
    mixer = build(spatial_dims, **ALL)
    x = torch.randn(1, DIM, *{1: (3,), 2: (2, 2), 3: (1, 2, 2)}[spatial_dims], dtype=torch.float64)
    tokens = torch.randn(1, 1, DIM, dtype=torch.float64)
    names, values = zip(*mixer.named_parameters(), strict=True)
    own = [n for n in names if n in ("qk_scale", "relative_bias")]
    assert len(own) == 2

    def call(x: Tensor, tokens: Tensor, *given: Tensor) -> Any:
        return torch.func.functional_call(mixer, dict(zip(own, given, strict=True)), (x, tokens))

    given = [v for n, v in zip(names, values, strict=True) if n in own]
    assert torch.autograd.gradcheck(call, (x.requires_grad_(), tokens.requires_grad_(), *given), fast_mode=True)


# Invariances.


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
def test_equals_full_attention_where_the_window_covers_the_grid(size: tuple[int, ...], tokens: int) -> None:
    """With a shifted border a window as long as the grid is enough, with a clipped one it takes twice that."""
    full = Attention(DIM, spatial_dims=len(size), head_dim=HEAD).double()
    x = torch.randn(2, DIM, *size, dtype=torch.float64)
    given = torch.randn(2, tokens, DIM, dtype=torch.float64) if tokens else None
    want, want_tokens = full(x, given)
    for border, kernel in (("clip", [2 * n - 1 for n in size]), ("shift", [n + 1 - n % 2 for n in size])):
        local = build(len(size), kernel_size=kernel, border=border)
        local.load_state_dict(full.state_dict())
        got, got_tokens = local(x, given)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_tokens, want_tokens)


@pytest.mark.parametrize("border", BORDERS)
def test_zeros_change_nothing(border: str) -> None:
    """Slopes of zero, a table at its start, and a soft cap far above the scores."""
    plain, (x, tokens) = build(border=border, kernel_size=3), data(2, 1)
    state = plain.state_dict()
    want, want_tokens = plain(x, tokens)
    cases: list[dict[str, Any]] = [{"slopes": 0.0}, {"slopes": False}, {"relative_bias": True}, {"softcap": 1e6}]
    for options in cases:
        other = LocalAttention(DIM, head_dim=HEAD, border=border, **options).double()
        other.load_state_dict(state, strict=False)
        got, got_tokens = other(x, tokens)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_tokens, want_tokens)
        changed = build(border=border, **{**options, **({"slopes": 0.1} if "slopes" in options else {})})
        changed.load_state_dict(state, strict=False)
        if "softcap" not in options:  # the same options with other values do change the map
            assert not torch.allclose(changed(x, tokens)[0], want)


def test_tokens_that_are_not_written_leave_the_map_as_it_was() -> None:
    """With an output projection of zero; and each alone sees the other: the map changes the token and back."""
    mixer, (x, tokens) = build(**ALL), data(2, 2)
    assert tokens is not None
    with_tokens, mixed = mixer(x, tokens)
    assert not torch.allclose(with_tokens, mixer(x)[0])
    assert not torch.allclose(mixed, mixer(x + 1, tokens)[1])
    far = tokens.clone()
    far[:, 1] += 1
    assert not torch.allclose(mixed[:, 0], mixer(x, far)[1][:, 0])  # tokens see each other
    with torch.no_grad():
        mixer.proj.weight.zero_()
    torch.testing.assert_close(mixer(x, tokens)[0], mixer(x)[0])


def test_a_token_without_values_takes_its_share_of_the_weights() -> None:
    """It stands in the same softmax: equal scores give each of ``m`` neighbours ``1 / (m + 1)``."""
    mixer = build(kernel_size=3, proj_bias=False)
    with torch.no_grad():
        mixer.qkv.weight[:DIM] = 0  # queries: all scores are zero
    x, tokens = torch.randn(1, DIM, 5, 6, dtype=torch.float64), torch.zeros(1, 1, DIM, dtype=torch.float64)
    share = mixer(x, tokens)[0] / mixer(x)[0]
    torch.testing.assert_close(share[..., 0, 0], torch.full_like(share[..., 0, 0], 4 / 5))
    torch.testing.assert_close(share[..., 2, 2], torch.full_like(share[..., 2, 2], 9 / 10))


def test_heads_look_along_their_slopes() -> None:
    """With equal scores and values that are the coordinates, head by head +x, -x, +y, -y, +x, -x."""
    mixer = build(kernel_size=3, slopes=True, proj_bias=False)
    assert mixer.slopes == 0.1
    with torch.no_grad():
        mixer.qkv.weight[: 2 * DIM] = 0
        mixer.qkv.weight[2 * DIM :] = torch.eye(DIM)
        mixer.proj.weight.copy_(torch.eye(DIM))
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    x = torch.stack([columns, rows] * (DIM // 2)).double()[None]  # a head has x and y
    moved = (mixer(x)[0] - x)[0, :, 2, 2].view(-1, HEAD)
    step = 2 * torch.tensor(0.1).sinh() / (1 + 2 * torch.tensor(0.1).cosh())  # mean of -1, 0, 1 weighted exp(0.1 i)
    directions = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    torch.testing.assert_close(moved.float(), step * torch.tensor(directions))


def test_qk_norm_bounds_the_scores() -> None:
    """Larger inputs do not sharpen the weights, as they do without."""
    x = torch.randn(1, DIM, 4, 4, dtype=torch.float64)
    for normed in (True, False):
        mixer = build(qk_norm=normed, proj_bias=False)
        same = torch.allclose(mixer(100 * x)[0] / 100, mixer(x)[0], rtol=1e-2, atol=1e-2)
        assert same == normed


@pytest.mark.parametrize(
    ("options", "message"), [({"slopes": True}, "pooling' slopes: expected none"), ({"border": "shift"}, "'clip'")]
)
def test_what_is_no_mean_does_not_start_as_pooling(options: dict[str, Any], message: str) -> None:
    mixer = {"name": "local_attention", "init": "pooling", **options}
    with pytest.raises(UserError, match=message):
        create_model("metaformer_nano", token_mixer=mixer)


# What is promised of every mixer, with all options.


def test_exports_and_compiles() -> None:
    mixer = LocalAttention(DIM, head_dim=HEAD, **ALL).eval()
    x, tokens = torch.randn(2, DIM, 7, 5), torch.randn(2, 2, DIM)
    want = mixer(x, tokens)
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, tokens), want)
    sizes = {2: torch.export.Dim("h", min=2, max=64), 3: torch.export.Dim("w", min=2, max=64)}
    program = torch.export.export(mixer, (x, tokens), dynamic_shapes=(sizes, None))
    z = torch.randn(2, DIM, 11, 9)
    torch.testing.assert_close(program.module()(z, tokens), mixer(z, tokens))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype: torch.dtype) -> None:
    mixer = LocalAttention(DIM, head_dim=HEAD, **ALL)
    x, tokens = torch.randn(2, DIM, 7, 5), torch.randn(2, 2, DIM)
    want = mixer(x, tokens)
    half = copy.deepcopy(mixer).to(dtype)(x.to(dtype), tokens.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        mixed = mixer(x, tokens)
    for got in (half, mixed):
        for a, b in zip(got, want, strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(a.float(), b, atol=0.03, rtol=0.03)


def test_facts() -> None:
    assert mixer_info("local_attention")["position"] == "none"
    assert mixer_info("local_attention", slopes=True)["position"] == "bias"
    assert mixer_info("local_attention", relative_bias=True)["position"] == "bias"
    assert mixer_info("local_attention", qk_norm=True)["position"] == "none"
    assert LocalAttention(32).state_dict().keys() == {"qkv.weight", "proj.weight", "proj.bias"}
    assert LocalAttention(32, qk_norm=True, relative_bias=True).no_decay == ("qk_scale", "relative_bias")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": "wrap"}, "clip, shift"),
        ({"slopes": "up"}, "true, false or a finite number"),
        ({"slopes": float("nan")}, "finite"),
        ({"softcap": 0}, "a positive number or None"),
        ({"softcap": True}, "a positive number or None"),
        ({"qk_norm": 1}, "true or false"),
        ({"relative_bias": 0.1}, "true or false"),
        ({"backend": "bands", "slopes": True, "softcap": 3}, "backend='bands' with a bias and a soft cap"),
        ({"backend": "bands", "border": "shift"}, "a shifted border"),
        ({"backend": "natten", "relative_bias": True}, "try backend='auto'"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LocalAttention(DIM, head_dim=HEAD, **options)
