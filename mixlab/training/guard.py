"""The numerical guard: a loss or gradient that is not finite stops the run before the optimiser step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Diverged(RuntimeError):
    """Training met a value that is not finite.

    Attributes:
        step: optimiser steps taken before it.
        epoch: epoch in which it was met, from 1.
        tensor: the first bad tensor: ``loss``, ``gradient of NAME``, or ``validation output``.
    """

    def __init__(self, step: int, epoch: int, tensor: str) -> None:
        super().__init__(f"not finite at step {step} (epoch {epoch}): {tensor}")
        self.step, self.epoch, self.tensor = step, epoch, tensor

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, int, str]]:
        return (Diverged, (self.step, self.epoch, self.tensor))


class Guard:
    """Watches the losses since the last optimiser step and the gradients before the next one."""

    def __init__(self) -> None:
        self._losses: Tensor | None = None

    def add_loss(self, loss: Tensor) -> None:
        """Remember a loss; read only at :meth:`check`, so that a GPU is synchronised once a step."""
        loss = loss.detach().float()
        self._losses = loss if self._losses is None else self._losses + loss

    def check(self, model: nn.Module, *, step: int, epoch: int, gradients: bool = True) -> None:
        """Raise :class:`Diverged` if a loss since the last check or a gradient is not finite.

        Args:
            gradients: False under a loss scaler, for which an overflowing gradient is an ordinary event.
        """
        losses, self._losses = self._losses, None
        values = [] if losses is None else [losses]
        if gradients:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            values.append(torch.nn.utils.get_total_norm(grads).float())
        if not values or bool(torch.isfinite(torch.stack(values)).all()):
            return
        if losses is not None and not bool(torch.isfinite(losses)):
            raise Diverged(step, epoch, "loss")
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise Diverged(step, epoch, f"gradient of {name}")
        # Finite entries whose norm overflows float32 are as useless as infinite ones.
        raise Diverged(step, epoch, "norm of the gradient")
