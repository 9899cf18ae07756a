"""What Manhattan attention must do whatever its weights are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mixlab.errors import UserError
from mixlab.mixers.manhattan_attention import (
    ManhattanAttention,
    decay_mask,
    decay_rates,
    rotary_angles,
    rotary_turns,
    rotated,
)

DIM = 12
SIZES = {1: (7,), 2: (4, 5), 3: (2, 3, 4)}
NO_DECAY = {"decay_start": 60.0, "decay_range": 0.0}  # 1 - 2^-60 is 1


def make(**options: Any) -> ManhattanAttention:
    torch.manual_seed(0)
    return ManhattanAttention(DIM, **{"head_dim": 4, **options}).double()


def pair(**options: Any) -> tuple[ManhattanAttention, ManhattanAttention]:
    """The decomposed and the whole form of the same weights."""
    decomposed, whole = make(**options), make(**options, decomposed=False)
    whole.load_state_dict(decomposed.state_dict())
    return decomposed, whole


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_both_forms_are_the_same_on_one_axis() -> None:
    line, whole_line = pair(spatial_dims=1)
    x = image(2, DIM, 7)
    torch.testing.assert_close(line(x), whole_line(x))
    plane, whole_plane = pair()
    for size in ((1, 7), (7, 1)):
        torch.testing.assert_close(plane(x.view(2, DIM, *size)), whole_plane(x.view(2, DIM, *size)))
    box, whole_box = pair(spatial_dims=3)
    for shape in ((1, 1, 7), (1, 7, 1), (7, 1, 1)):
        torch.testing.assert_close(box(x.view(2, DIM, *shape)), whole_box(x.view(2, DIM, *shape)))
    y = image(2, DIM, 3, 4)
    assert not torch.allclose(plane(y), whole_plane(y))


@pytest.mark.parametrize("decomposed", [True, False])
def test_spaces_of_more_axes_hold_those_of_fewer(decomposed: bool) -> None:
    plane, box = make(decomposed=decomposed), make(decomposed=decomposed, spatial_dims=3)
    state = plane.state_dict()
    state["lepe.weight"] = torch.zeros_like(box.lepe.weight).index_copy(
        2, torch.tensor([2]), state["lepe.weight"][:, :, None]
    )
    box.load_state_dict(state)
    x = image(2, DIM, 4, 5)
    torch.testing.assert_close(box(x[:, :, None])[:, :, 0], plane(x))


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_without_decay_it_is_rotary_attention(spatial_dims: int) -> None:
    size = SIZES[spatial_dims]
    mixer = make(spatial_dims=spatial_dims, decomposed=False, **NO_DECAY)
    x = image(2, DIM, *size)
    q, k, v = (f(x).flatten(2).unflatten(1, (3, 4)) for f in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
    angles = torch.arange(q.shape[3], dtype=torch.float64) * rotary_angles(4).double()[::2, None]  # (d / 2, N)
    turn = torch.polar(torch.ones_like(angles), angles)

    def turned(t: torch.Tensor) -> torch.Tensor:
        z = torch.complex(t[:, :, 0::2], t[:, :, 1::2]) * turn
        return torch.view_as_real(z).transpose(3, 4).flatten(2, 3)

    weights = torch.einsum("bhdi,bhdj->bhij", turned(q), turned(k)).div(2).softmax(3)
    mixed = torch.einsum("bhij,bhdj->bhdi", weights, v).flatten(1, 2).unflatten(2, size)
    torch.testing.assert_close(mixer(x), mixer.out_proj(mixed + mixer.lepe(mixer.v_proj(x))))


def test_steep_decay_leaves_every_position_alone() -> None:
    """With a decay of almost -infinity a step a position attends to itself, and its value passes."""
    for mixer in pair(decay_start=1e-6, decay_range=0.0):  # ln(1 - 2^-1e-6) = -14
        with torch.no_grad():
            for layer in (mixer.q_proj, mixer.k_proj):
                layer.weight.mul_(0.1)
        x = image(2, DIM, 4, 5)
        v = mixer.v_proj(x)
        torch.testing.assert_close(mixer(x), mixer.out_proj(v + mixer.lepe(v)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decomposed", [True, False])
def test_a_constant_map_stays_constant_but_for_the_convolution(decomposed: bool) -> None:
    mixer = make(decomposed=decomposed)
    torch.nn.init.zeros_(mixer.lepe.weight)
    y = mixer(torch.ones(1, DIM, 4, 5, dtype=torch.float64))
    torch.testing.assert_close(y, y[:, :, :1, :1].expand_as(y))


def test_scores_know_the_difference_of_indices_only() -> None:
    turns = rotary_turns(9, 4, 3, dtype=torch.float64, device=torch.device("cpu"))
    q, k = (t.expand(1, 9, DIM) for t in image(2, 1, 1, DIM).unbind())
    scores = rotated(q, turns)[0] @ rotated(k, turns)[0].T
    for shift in range(-8, 9):
        diagonal = scores.diagonal(shift)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_rotation_keeps_lengths_and_both_ways_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(2, 9, DIM)
    turns = rotary_turns(9, 4, 3, dtype=torch.float64, device=torch.device("cpu"))
    fast = rotated(x, turns)
    torch.testing.assert_close(fast.unflatten(2, (-1, 2)).norm(dim=3), x.unflatten(2, (-1, 2)).norm(dim=3))
    torch.testing.assert_close(fast[:, 0], x[:, 0])  # the first position does not turn
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotated(x, turns), fast)


def test_decay_is_the_manhattan_distance() -> None:
    rates = decay_rates(3, 2.0, 6.0).double()
    mask = decay_mask((4, 5), 3, 2.0, 6.0, dtype=torch.float64, device=torch.device("cpu"))[0].view(3, 4, 5, 4, 5)
    assert mask[1, 0, 1, 3, 3].item() == pytest.approx(5 * rates[1].item())
    assert mask[2, 2, 4, 2, 0].item() == pytest.approx(4 * rates[2].item())
    assert (rates < 0).all()
    assert (rates.diff() > 0).all()  # later heads look further
    assert rates[0].exp().item() == pytest.approx(0.75)


def test_a_flipped_row_gives_the_flipped_result_without_rotation() -> None:
    """Decay knows distances, not directions; only the rotation and the convolution do."""
    mixer = make(head_dim=4)
    torch.nn.init.zeros_(mixer.q_proj.weight)
    torch.nn.init.zeros_(mixer.q_proj.bias)  # nothing to rotate: the decay alone weights
    mixer.lepe.weight.data = (mixer.lepe.weight + mixer.lepe.weight.flip(2, 3)).data
    x = image(1, DIM, 4, 5)
    torch.testing.assert_close(mixer(x.flip(2, 3)), mixer(x).flip(2, 3))


def test_half_precision_is_near_on_large_maps() -> None:
    mixer = make().float()
    x = image(1, DIM, 40, 30).float()
    got = copy.deepcopy(mixer).bfloat16()(x.bfloat16()).float()
    torch.testing.assert_close(got, mixer(x), atol=0.03, rtol=0.03)


def test_cost_of_both_forms() -> None:
    decomposed, whole = (m.cost((6, 5)) for m in pair())
    assert decomposed.macs_dense == whole.macs_dense == whole.macs_needed
    assert whole.macs_needed - decomposed.macs_needed == 2 * DIM * 30 * (30 - 6 - 5)


def test_whole_form_against_the_naive_twin() -> None:
    from tests.mixers.test_cost import compare

    for spatial_dims in (1, 2, 3):
        compare("manhattan_attention", spatial_dims, decomposed=False)
    compare("manhattan_attention", 2, lepe_kernel=(1, 3), head_dim=6, decay_start=1, decay_range=5)


def test_bad_options() -> None:
    with pytest.raises(UserError, match=r"an even number.*try head_dim=6"):
        ManhattanAttention(DIM, head_dim=3)
    with pytest.raises(UserError, match="a divisor of the width 12"):
        ManhattanAttention(DIM, head_dim=16)
    with pytest.raises(UserError, match="lepe kernel_size"):
        ManhattanAttention(DIM, head_dim=4, lepe_kernel=4)
    with pytest.raises(UserError, match="a positive sum in every head"):
        ManhattanAttention(DIM, head_dim=4, decay_start=0.0)


def test_depthwise_mlp_treats_tokens_without_neighbours() -> None:
    from mixlab.channel_mixers.depthwise_mlp import DepthwiseMLP

    mlp = DepthwiseMLP(6, ratio=2.0)
    tokens = torch.randn(2, 3, 6)
    hidden = F.gelu(F.linear(tokens, mlp.fc1.weight, mlp.fc1.bias))
    torch.testing.assert_close(mlp.forward_tokens(tokens), F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias))
