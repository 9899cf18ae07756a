from __future__ import annotations

import pytest
import torch

from mixlab.training.augment import Augment, Normalise, random_affine, random_flips

SIZES = [(13,), (13, 11), (5, 7, 11)]


@pytest.mark.parametrize("size", SIZES)
def test_affine_map_without_noise_is_the_identity(size: tuple[int, ...]) -> None:
    x = torch.rand(3, 2, *size)
    torch.testing.assert_close(random_affine(x, 0.0)[0], x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_affine_map_moves_each_image_by_itself(size: tuple[int, ...]) -> None:
    x = torch.rand(1, 1, *size).expand(4, 1, *size)
    y, _ = random_affine(x, 0.1)
    assert y.shape == x.shape
    assert all(not torch.allclose(y[0], y[i]) for i in range(1, 4))
    # Channels of one image move together.
    pair = torch.rand(2, 1, *size).repeat(1, 2, *[1] * len(size))
    moved, _ = random_affine(pair, 0.2)
    torch.testing.assert_close(moved[:, 0], moved[:, 1])


def test_affine_map_shifts_along_the_axis_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.zeros(1, 1, 2)
    noise[0, 0, 1] = 0.5  # half of [-1, 1]'s half: a quarter of the line
    monkeypatch.setattr(torch, "randn", lambda *a, **k: noise)
    x = torch.arange(8.0).reshape(1, 1, 8)
    assert random_affine(x, 1.0)[0][0, 0, :6].tolist() == pytest.approx([2, 3, 4, 5, 6, 7])


def test_flips_keep_to_the_allowed_axes() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(64, 1, 1, 1)
    torch.manual_seed(0)
    y, _ = random_flips(x, (1,))
    kinds = {tuple(image.flatten().int().tolist()) for image in y}
    assert kinds == {(0, 1, 2, 3, 4, 5), (2, 1, 0, 5, 4, 3)}
    assert torch.equal(random_flips(x, ())[0], x)


def test_no_augmentation_in_evaluation_mode() -> None:
    x = torch.rand(2, 1, 5, 5)
    assert torch.equal(Augment(0.1, (0, 1)).eval()(x)[0], x)
    assert not torch.equal(Augment(0.1, ()).train()(x)[0], x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_normalise_uses_the_statistics_of_each_channel(dims: int) -> None:
    x = torch.rand(4, 2, *[5] * dims)
    y = Normalise((0.5, 0.25), (0.5, 0.0), dims)(x)
    torch.testing.assert_close(y[:, 0], (x[:, 0] - 0.5) / 0.5)
    torch.testing.assert_close(y[:, 1], x[:, 1] - 0.25)  # a constant channel is shifted, not divided by zero


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planes", [False, True])
def test_masks_move_with_their_images(size: tuple[int, ...], planes: bool) -> None:
    """Thresholding the mapped image gives the mapped mask, but for pixels that interpolation mixes."""
    torch.manual_seed(0)
    big = tuple(4 * n for n in size)
    x = torch.nn.functional.interpolate(torch.rand(4, 1, *size).round(), size=big, mode="nearest")
    mask = x.float() if planes else x[:, 0].long()
    moved, seen = Augment(0.1, tuple(range(len(size)))).train()(x, mask)
    assert seen is not None
    assert seen.dtype == mask.dtype
    assert seen.shape == mask.shape
    found = seen if planes else seen.unsqueeze(1)
    sure = (moved < 0.01) | (moved > 0.99)
    assert sure.float().mean() > 0.2
    torch.testing.assert_close(moved[sure].round(), found[sure].float())
    assert not torch.equal(seen, mask)


def test_outside_of_the_image_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.zeros(1, 2, 3)
    noise[0, 1, 2] = 1.0  # half an image along the first axis
    monkeypatch.setattr(torch, "randn", lambda *a, **k: noise)
    x, mask = random_affine(torch.ones(1, 1, 4, 3), 1.0, torch.ones(1, 4, 3, dtype=torch.int64), outside=255)
    assert mask is not None
    assert mask[0].tolist() == [[1] * 3] * 2 + [[255] * 3] * 2
    assert x[0, 0, 2:].abs().max() < 1e-6
