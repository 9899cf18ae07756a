"""Exchanging mixers: what stays, what is computed, and a report that accounts for all of it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model, register_mixer
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.mixers import MIXERS, Mixer
from mixlab.mixers.pooling import Pooling
from mixlab.registry import Part
from mixlab.weights import LoadReport, register_warm_start, swap_mixers
from mixlab.weights.conversions import POOLING_STARTS, WARM_STARTS, Made, pooling_entries
from tests.mixers.cases import PRIMES, make

NANO: dict[str, Any] = {"num_classes": 3, "in_channels": 1, "image_size": 28}
HEADS = {name: {"head_dim": 16} for name in MIXERS if "head_dim" in MIXERS.options(name)}


def nano(mixer: Any = None, **options: Any) -> MetaFormer:
    """A model whose every parameter is away from its start, so that a wrong entry shows."""
    model = create_model("metaformer_nano", token_mixer=mixer, **{**NANO, **options})
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.1)
    return model.eval()


def out(model: MetaFormer, size: int = 28) -> Tensor:
    images = torch.randn(2, 1, *(size,) * model.config.spatial_dims, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        result = model.eval()(images)
    assert isinstance(result, Tensor)
    return result


def assert_accounted(report: LoadReport, model: MetaFormer) -> None:
    """Every entry of the model once, with its numbers, and shares that sum to one."""
    state = model.state_dict()
    assert sorted([*report.kept, *report.adapted, *report.new]) == sorted(state)
    assert report.sizes == {k: v.numel() for k, v in state.items()}
    shares = report.shares()
    assert math.isclose(shares["kept"] + shares["adapted"] + shares["new"], 1.0)


def part(name: str) -> dict[str, Any]:
    return {"name": name, **HEADS.get(name, {})}


@pytest.mark.parametrize("name", list(MIXERS))
@pytest.mark.parametrize("init", ["warm", "random"])
def test_a_swap_with_itself_is_exact(name: str, init: str) -> None:
    model = nano(part(name))
    before, want = copy.deepcopy(model.state_dict()), out(model)
    report = swap_mixers(model, part(name), init=init)
    assert report.complete
    assert report.shares() == {"kept": 1.0, "adapted": 0.0, "new": 0.0, "dropped": 0.0}
    assert report.output_change == 0.0
    assert torch.equal(out(model), want)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", [n for n in MIXERS if n != "random_mixing"])
def test_a_swapped_model_can_be_made_again_from_its_configuration(name: str) -> None:
    torch.manual_seed(1)
    model = nano(["sep_conv", "identity"])
    report = swap_mixers(model, part(name), stages="PPTT")
    assert_accounted(report, model)
    again = MetaFormer(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(out(again), out(model))
    assert model.config.stages[0].mixers == (Part("sep_conv"), Part("identity"))
    assert model.events[-1] == {"kind": "weights", "message": report.summary()}
    assert {k.split(".")[1] for k in report.dropped} == (set() if name == "sep_conv" else {"2", "3"})


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("name", sorted(POOLING_STARTS))
def test_a_mixer_that_starts_as_pooling_equals_pooling(name: str, subtract: bool, spatial_dims: int) -> None:
    """Everywhere where the definition allows it; convolutions inside, as they count zeros outside the image."""
    x = torch.randn(2, 6, *PRIMES[spatial_dims])
    options: dict[str, Any] = {"subtract_input": subtract} if name == "local_attention" else {}
    mixer = make(name, spatial_dims, **options)
    pooling = Part("pooling", {"kernel_size": 3, "subtract_input": subtract})
    values, _ = pooling_entries(pooling, Part(name), mixer)
    mixer.load_state_dict(mixer.state_dict() | values)
    want = Pooling(6, spatial_dims=spatial_dims, subtract_input=subtract)(x)
    returned = mixer(x)
    got = returned[0] if isinstance(returned, tuple) else returned
    if name == "attention":  # no window, and nothing subtracted
        want = x.mean(tuple(range(2, x.ndim)), keepdim=True).expand_as(x)
    if "conv" in name:
        inside = (..., *(slice(1, -1),) * spatial_dims)
        got, want = got[inside], want[inside]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_model_with_local_attention_as_pooling_equals_its_poolformer(kernel: int) -> None:
    """The kernel is the pooling's where none is given."""
    model = nano({"name": "pooling", "kernel_size": kernel})
    want = out(model)
    report = swap_mixers(model, "local_attention", init="pooling")
    torch.testing.assert_close(out(model), want, atol=1e-5, rtol=1e-5)
    assert report.output_change is not None
    assert report.output_change < 1e-5
    assert model.config.stages[0].mixers[0].options["subtract_input"] is True
    assert f"the mean of its {kernel}x{kernel} window minus the position" in report.summary()
    assert_accounted(report, model)


def test_extensions_that_weigh_neighbours_cannot_act_as_pooling() -> None:
    for options, words in (
        ({"slopes": True}, "slopes: expected none"),
        ({"border": "shift"}, "border: expected 'clip'"),
    ):
        with pytest.raises(UserError, match=words):
            swap_mixers(nano("pooling"), "local_attention", init="pooling", **options)
    model = nano("pooling")
    want = out(model)
    swap_mixers(model, "local_attention", init="pooling", relative_bias=True, qk_norm=True, softcap=5.0)
    torch.testing.assert_close(out(model), want, atol=1e-5, rtol=1e-5)


def test_extensions_of_a_warm_start_are_said() -> None:
    report = swap_mixers(nano("attention"), "local_attention", kernel_size=5, init="warm", relative_bias=True)
    assert "note: local_attention: relative_bias True" in report.summary()
    assert {k.rpartition(".")[2] for k in report.new} == {"relative_bias"}


def test_a_start_as_pooling_learns() -> None:
    """With zero queries the keys' gradient is zero at first, the queries' is not."""
    model = nano("pooling")
    swap_mixers(model, "local_attention", init="pooling")
    model(torch.randn(4, 1, 28, 28)).square().sum().backward()
    mixer: Any = next(iter(next(model.each_stage()).each_block())).token_mixer
    dim = mixer.dim
    assert mixer.qkv.weight.grad[:dim].abs().max() > 0
    assert mixer.qkv.weight.grad[2 * dim :].abs().max() > 0


def test_another_window_than_the_poolings_is_said() -> None:
    report = swap_mixers(nano("pooling"), "local_attention", kernel_size=5, stages="PPTT", init="pooling")
    assert "the mean of its 5x5 window minus the position; the pooling that it replaces has 3x3" in report.summary()
    assert report.output_change is not None
    assert report.output_change > 1e-4
    borders = swap_mixers(nano("pooling"), "sep_conv", init="pooling")
    assert "at borders it counts zeros, pooling does not" in borders.summary()
    assert "does not subtract the position" in swap_mixers(nano("pooling"), "attention", init="pooling").summary()


@pytest.mark.parametrize("name", [n for n in MIXERS if n not in POOLING_STARTS and n != "pooling"])
def test_mixers_that_cannot_act_as_pooling_are_refused(name: str) -> None:
    model = nano("sep_conv")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=f"expected a mixer that can act as pooling .*got '{name}'"):
        swap_mixers(model, part(name), init="pooling")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.config.stages[0].mixers == (Part("sep_conv"),)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_warm_start_is_exact_where_the_window_covers_the_grid(spatial_dims: int) -> None:
    """Both ways; the head size, which is not given, is the former mixer's."""
    size = 16 if spatial_dims == 3 else 28
    full = {"name": "attention", "qkv_bias": True, "proj_bias": False, "head_dim": 32}
    model = nano(full, spatial_dims=spatial_dims)
    want = out(model, size)
    report = swap_mixers(model, "local_attention", kernel_size=2 * size - 1, init="warm")
    assert report.complete
    torch.testing.assert_close(out(model, size), want, atol=1e-5, rtol=1e-5)
    assert model.config.stages[0].mixers[0].options["head_dim"] == 32
    assert "reach: window" in report.summary()
    swap_mixers(model, "attention", init="warm")
    torch.testing.assert_close(out(model, size), want, atol=1e-5, rtol=1e-5)


def test_a_warm_start_with_a_small_window_says_how_much_it_changed() -> None:
    model = nano("attention")
    want = out(model)
    report = swap_mixers(model, {"name": "local_attention", "kernel_size": 3, "subtract_input": True}, init="warm")
    assert not torch.allclose(out(model), want, atol=1e-3)
    assert report.output_change is not None
    assert report.output_change > 1e-3
    assert f"the swap changed the output by {report.output_change:.3g} of its size" in report.summary()
    assert "subtract_input True" in report.summary()


def test_other_heads_are_taken_where_told_and_said() -> None:
    """The weights fit; what they mean changes, as in the study, which went from 32 to 16."""
    model = nano("attention")
    want = out(model)
    report = swap_mixers(model, {"name": "local_attention", "kernel_size": 15, "head_dim": 16}, init="warm")
    assert not torch.allclose(out(model), want, atol=1e-4)  # with heads of the same size this window changes nothing
    assert "head_dim 16 instead of 32" in report.summary()


WINDOWED = ["conv", "sep_conv", "inverted_sep_conv", "ffnified_attention"]


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_grown_kernel_computes_the_same(name: str, spatial_dims: int) -> None:
    options: dict[str, Any] = {"spatial_dims": spatial_dims}
    model = nano({"name": name, "kernel_size": 3}, **options)
    want = out(model, 12)
    for kernel in (5, 7):
        report = swap_mixers(model, name, kernel_size=kernel, init="warm")
        torch.testing.assert_close(out(model, 12), want, atol=1e-5, rtol=1e-5)
        assert not report.new
        assert not report.dropped
        sizes = "x".join([str(kernel)] * spatial_dims)
        assert any(f"kernel in the centre of {sizes}, zeros around" in how for how in report.adapted.values())
        assert_accounted(report, model)
    shrunk = swap_mixers(model, name, kernel_size=3, init="warm")  # only zeros are cut
    torch.testing.assert_close(out(model, 12), want, atol=1e-5, rtol=1e-5)
    assert any("(100.0% of its squared weights)" in how for how in shrunk.adapted.values())


def test_a_cropped_kernel_says_what_is_lost() -> None:
    model = nano({"name": "sep_conv", "kernel_size": 5})
    report = swap_mixers(model, "sep_conv", kernel_size=(3, 5), init="warm")
    how = report.adapted["stages.0.blocks.0.token_mixer.conv.weight"]
    assert "the centre of the 5x5 kernel, as 3x5" in how
    assert "100.0%" not in how


def test_depthwise_as_dense_is_exact_and_back() -> None:
    model = nano({"name": "sep_conv", "kernel_size": 5, "dilation": 2, "bias": False})
    want = out(model)
    report = swap_mixers(model, "conv", init="warm")
    torch.testing.assert_close(out(model), want, atol=1e-5, rtol=1e-5)
    assert model.config.stages[0].mixers[0].options == {"kernel_size": 5, "dilation": 2, "bias": False}
    assert_accounted(report, model)
    back = swap_mixers(model, "sep_conv", init="warm")
    torch.testing.assert_close(out(model), want, atol=1e-5, rtol=1e-5)
    assert "(100.0% of its squared weights)" in back.summary()


def test_dense_as_depthwise_takes_the_diagonal() -> None:
    model = nano({"name": "conv", "kernel_size": 3})
    dense = {k: v for k, v in model.state_dict().items() if k.endswith("token_mixer.conv.weight")}
    report = swap_mixers(model, "sep_conv", kernel_size=5, init="warm")
    state = model.state_dict()
    for key, weight in dense.items():
        want = torch.stack([weight[c, c] for c in range(len(weight))])
        assert torch.equal(state[key][:, 0, 1:-1, 1:-1], want)
    how = report.adapted["stages.0.blocks.0.token_mixer.conv.weight"]
    assert how.startswith("the diagonal of the dense kernel (")
    assert how.endswith("the 3x3 kernel in the centre of 5x5, zeros around")
    with pytest.raises(UserError, match="dilation: expected"):
        swap_mixers(model, "conv", dilation=2, init="warm")


def test_a_random_matrix_learns_on() -> None:
    model = nano("random_mixing")
    want = out(model)
    report = swap_mixers(model, "spatial_fc", init="warm")
    torch.testing.assert_close(out(model), want, atol=1e-6, rtol=1e-6)
    assert report.adapted["stages.0.blocks.0.token_mixer.fc.weight"] == "the random matrix"
    assert not report.dropped
    assert not report.new
    assert all(p.requires_grad for p in model.parameters())


def test_pairs_without_a_rule_are_refused() -> None:
    with pytest.raises(UserError, match=r"init='warm' for sep_conv: .*\(conv, sep_conv\), got 'pooling'.*'pooling'"):
        swap_mixers(nano("pooling"), "sep_conv", init="warm")
    with pytest.raises(UserError, match="try init='random'"):
        swap_mixers(nano("pooling"), "inverted_sep_conv", init="warm")
    with pytest.raises(UserError, match="4 letters, T to swap and P to leave"):
        swap_mixers(nano("pooling"), "conv", stages="PPT")
    with pytest.raises(UserError, match=r"unknown init: .*try 'warm'"):
        swap_mixers(nano("pooling"), "conv", init="warn")
    with pytest.raises(UserError, match="an option that it has, got 'kernel'"):
        swap_mixers(nano("pooling"), "conv", kernel=3)


def test_a_mixer_of_ones_own_registers_its_rule() -> None:
    """One file is enough: the mixer, and what it takes over."""

    @register_mixer("scaled_identity")
    class Scaled(Mixer):
        def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
            super().__init__(dim, spatial_dims=spatial_dims)
            self.scale = torch.nn.Parameter(torch.ones(dim))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.view(-1, *(1,) * self.spatial_dims)

    try:

        @register_warm_start("sep_conv", "scaled_identity")
        def centre(old: Any, new: Any) -> dict[str, Made]:
            kernel = old.conv.weight[:, 0]
            middle = kernel[(slice(None), *(k // 2 for k in kernel.shape[1:]))]
            return {"scale": Made(middle.detach(), "the centre of the kernel", ("conv.weight",))}

        model = nano({"name": "sep_conv", "kernel_size": 1, "bias": False})
        want = out(model)
        report = swap_mixers(model, "scaled_identity", init="warm")
        torch.testing.assert_close(out(model), want, atol=1e-6, rtol=1e-6)
        assert report.adapted["stages.0.blocks.0.token_mixer.scale"] == "the centre of the kernel"
        assert not report.dropped
        assert swap_mixers(model, "scaled_identity", init="warm").complete
    finally:
        WARM_STARTS.pop(("sep_conv", "scaled_identity"), None)
        MIXERS._entries.pop("scaled_identity")


def test_modes_dtype_and_generators_stay() -> None:
    model = nano("attention").double().train()
    next(model.each_stage()).norm.eval()
    modes = {n: m.training for n, m in model.named_modules()}
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        want = copy.deepcopy(model).eval()(x)
    swap_mixers(model, "local_attention", kernel_size=55, init="warm")
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert {n: m.training for n, m in model.named_modules() if n in modes} == modes
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), want, atol=1e-12, rtol=1e-12)


def test_global_tokens_follow_the_mixer() -> None:
    from mixlab.embeddings import GlobalTokens

    tokens = GlobalTokens(registers=1, on_unsupported="bypass")
    model = create_model("metaformer_nano", token_mixer="attention", global_tokens=tokens, **NANO)
    swap_mixers(model, "sep_conv", stages="PPTT")
    assert [e["message"] for e in model.events if e["kind"] == "tokens_bypass"] == [
        f"stage {i}: global tokens bypass SepConv, which takes none" for i in (2, 3)
    ]
    again = MetaFormer(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(out(again), out(model))
    swap_mixers(model, "attention", stages="PPTT")
    assert not [e for e in model.events if e["kind"] == "tokens_bypass"]
    strict = create_model("metaformer_nano", token_mixer="attention", global_tokens=GlobalTokens(registers=1), **NANO)
    with pytest.raises(UserError, match="a mixer that takes global tokens"):
        swap_mixers(strict, "sep_conv")


def test_given_images_are_what_is_measured() -> None:
    model = nano("pooling")
    images = torch.randn(2, 1, 32, 20)
    with torch.no_grad():
        before = model(images)
        report = swap_mixers(model, "identity", images=images)
        change = (model(images) - before).norm() / before.norm()
    assert report.output_change == pytest.approx(change.item(), rel=1e-4)
    assert report.notes[-1].endswith("(images of 2x1x32x20)")
