"""Losses of masks against numbers made by hand and torch's own."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.data.masks import IGNORE
from mixlab.data.pairing import LOSSES, OVERLAPPING
from mixlab.training.checks import check_pairing
from mixlab.training.mask_losses import TERMS, mask_loss

#: MONAI's Dice adds this above and below.
SMOOTH = 1e-5
OF_MAPS = LOSSES["segmentation"]


def maps(size: tuple[int, ...] = (5, 4), cases: int = 3, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits and index maps without ignored pixels."""
    return torch.randn(cases, classes, *size), torch.randint(0, classes, (cases, *size))


def test_dice_by_hand() -> None:
    """Two pixels, two classes, probabilities (3/4, 1/4) and (1/2, 1/2); the truth is class 0, then class 1."""
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
    found = mask_loss(logits, torch.tensor([[0, 1]]), "dice")
    by_class = [(2 * 0.75 + SMOOTH) / (1 + 1.25 + SMOOTH), (2 * 0.5 + SMOOTH) / (1 + 0.75 + SMOOTH)]
    assert found.tolist() == pytest.approx([1 - sum(by_class) / 2])


def test_dice_of_overlapping_structures_by_hand() -> None:
    """Probabilities 3/4 and 1/2 of the first structure, 1/2 twice of the second, which is nowhere."""
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    by_structure = [(2 * 1.25 + SMOOTH) / (2 + 1.25 + SMOOTH), SMOOTH / (1 + SMOOTH)]
    assert mask_loss(logits, truth, "dice").tolist() == pytest.approx([1 - sum(by_structure) / 2])


@pytest.mark.parametrize("size", [(7,), (5, 4), (2, 3, 4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torch_s(size: tuple[int, ...], smoothing: float, weighted: bool) -> None:
    logits, masks = maps(size)
    masks[0].view(-1)[:2] = IGNORE
    weights = torch.tensor([0.1, 1.0, 2.0, 7.0]) if weighted else None
    found = mask_loss(logits, masks, "cross_entropy", weights=weights, label_smoothing=smoothing)
    for i in range(len(logits)):
        want = F.cross_entropy(
            logits[i : i + 1], masks[i : i + 1], weight=weights, ignore_index=IGNORE, label_smoothing=smoothing
        )
        torch.testing.assert_close(found[i], want)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_torch_s(weighted: bool) -> None:
    logits, masks = torch.randn(2, 3, 5, 4), torch.randint(0, 2, (2, 3, 5, 4)).float()
    weights = torch.tensor([0.5, 1.0, 9.0]) if weighted else None
    shaped = None if weights is None else weights.reshape(3, 1, 1)
    want = F.binary_cross_entropy_with_logits(logits, masks, pos_weight=shaped, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(mask_loss(logits, masks, "bce", weights=weights), want)


@pytest.mark.parametrize(("whole", "parts"), [("dice_ce", ("dice", "cross_entropy")), ("dice_bce", ("dice", "bce"))])
def test_sums_of_terms(whole: str, parts: tuple[str, str]) -> None:
    logits, masks = maps()
    if whole == "dice_bce":
        masks = F.one_hot(masks, 4).movedim(-1, 1).float()
    want = sum(mask_loss(logits, masks, part) for part in parts)
    torch.testing.assert_close(mask_loss(logits, masks, whole), want)


@pytest.mark.parametrize("loss", OF_MAPS)
@pytest.mark.parametrize("options", [{}, {"weights": torch.tensor([0.1, 1.0, 2.0, 7.0]), "label_smoothing": 0.1}])
def test_an_ignored_pixel_changes_neither_loss_nor_gradient(loss: str, options: dict[str, Any]) -> None:
    logits, masks = maps((6,), cases=2)
    masks[:, 2] = IGNORE
    results = []
    for there in (logits, logits.index_fill(2, torch.tensor([2]), 50.0), logits[:, :, [0, 1, 3, 4, 5]]):
        own = there.clone().requires_grad_()
        target = masks if own.shape[2] == 6 else masks[:, [0, 1, 3, 4, 5]]
        found = mask_loss(own, target, loss, **options)
        found.sum().backward()
        assert own.grad is not None
        kept = own.grad if own.shape[2] == 5 else own.grad[:, :, [0, 1, 3, 4, 5]]
        if own.shape[2] == 6:
            assert not own.grad[:, :, 2].any()
        results.append((found.detach(), kept))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@pytest.mark.parametrize("loss", OF_MAPS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_case_in_which_nothing_counts_is_zero(loss: str, weighted: bool) -> None:
    logits, masks = maps()
    masks[1] = IGNORE
    logits.requires_grad_()
    found = mask_loss(logits, masks, loss, weights=torch.rand(4) + 0.1 if weighted else None)
    assert found[1] == 0
    assert (found[[0, 2]] > 0).all()
    found.mean().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


@pytest.mark.parametrize("loss", TERMS)
@pytest.mark.parametrize("far", [80.0, 1e4])
def test_certain_answers_have_finite_gradients(loss: str, far: float) -> None:
    """Right where the sign is right, and as wrong as can be elsewhere."""
    truth = torch.tensor([[0, 1, 1, 0]])
    target = F.one_hot(truth, 2).movedim(-1, 1).float() if loss in OVERLAPPING and loss != "dice" else truth
    signs = F.one_hot(torch.tensor([[0, 1, 0, 1]]), 2).movedim(-1, 1)
    logits = (far * (2 * signs - 1)).float().requires_grad_()
    found = mask_loss(logits, target, loss)
    found.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(found).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", TERMS)
@pytest.mark.parametrize("overlapping", [False, True])
def test_every_loss_is_offered_for_what_it_can_be_computed_on(loss: str, overlapping: bool) -> None:
    """The data's table of losses and the training's agree, in both directions."""
    offered = OVERLAPPING if overlapping else OF_MAPS
    assert set(TERMS) == {*OVERLAPPING, *OF_MAPS}
    card: Any = SimpleNamespace(name="set", task="segmentation", overlapping=overlapping, channels=1)
    if loss in offered:
        check_pairing(card, "segmentation", loss, 1)
        logits, masks = maps()
        target = F.one_hot(masks, 4).movedim(-1, 1).float() if overlapping else masks
        assert torch.isfinite(mask_loss(logits, target, loss)).all()
    else:
        with pytest.raises(ValueError, match=r"loss: expected a loss for .* try"):
            check_pairing(card, "segmentation", loss, 1)


@pytest.mark.parametrize("loss", TERMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_the_value(loss: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    masks = torch.randint(0, 3, (2, 3, 2), generator=generator)
    masks[0, 0, 0] = IGNORE
    if loss in OVERLAPPING and loss != "dice":
        masks = F.one_hot(masks.clamp(max=2), 3).movedim(-1, 1).double()
    weights = torch.tensor([0.3, 1.0, 2.0]) if weighted else None
    assert torch.autograd.gradcheck(lambda x: mask_loss(x, masks, loss, weights=weights), (logits,))
