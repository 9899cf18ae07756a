"""A data set and what is trained on it must fit together."""

from __future__ import annotations

from mixlab.data.card import DataCard
from mixlab.errors import expected

LOSSES = {
    "classification": ("cross_entropy",),
    "multilabel": ("bce",),
    "segmentation": ("dice_ce", "dice", "cross_entropy"),
}
OVERLAPPING = ("dice_bce", "dice", "bce")
"""Losses for masks of structures that may overlap."""


def default_loss(card: DataCard) -> str:
    """The loss of a data set where none is named: cross-entropy, with Dice for masks."""
    return OVERLAPPING[0] if card.overlapping else LOSSES[card.task][0]


def check_pairing(card: DataCard, task: str, loss: str, channels: int) -> None:
    """Refuse a task, loss or channel count that the data set does not have.

    Args:
        card: the data set's card.
        task: ``classification``, ``multilabel`` or ``segmentation``.
        loss: ``cross_entropy``, ``bce``, ``dice``, ``dice_ce`` or ``dice_bce``.
        channels: channels that the model takes.

    Raises:
        UserError: the pairing is wrong; the message says what the set needs.
    """
    where = f"data {card.name}"
    if task != card.task:
        raise expected(f"{where}, task", card.task, task, f"a {card.task} task or another data set")
    losses = OVERLAPPING if card.overlapping else LOSSES[card.task]
    if loss not in losses:
        kind = f"{card.task} of overlapping structures" if card.overlapping else card.task
        raise expected(f"{where}, loss", f"a loss for {kind} ({' or '.join(losses)})", loss, losses[0])
    if channels != card.channels:
        hint = f"in_channels={card.channels}, or data.channels={channels}"
        raise expected(f"{where}, channels of the model", card.channels, channels, hint)
