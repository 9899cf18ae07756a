"""Global tokens: a class token and registers that travel beside the map."""

from __future__ import annotations

from dataclasses import dataclass

from mixlab.errors import expected


@dataclass(frozen=True, kw_only=True)
class GlobalTokens:
    """Which global tokens a backbone has. They are ``(B, G, C)``, the class token first.

    In every block a token passes norm, token mixer, norm and channel mixer like a position: it attends to all and is
    attended by all. Between stages it is projected linearly to the next width.

    Parameters: ``G C`` for the first stage that has tokens, of width ``C``; for each later one ``C' (C + 1)`` from
    width ``C`` to ``C'``.

    Raises:
        UserError: no token at all, a negative number of registers, or an unknown ``on_unsupported``.
    """

    class_token: bool = False
    """Classify from a learned token rather than from the pooled map."""
    registers: int = 0
    """Number of further learned tokens."""
    start_stage: int = 0
    """Stage (from 0) before which the tokens are added."""
    on_unsupported: str = "raise"
    """What happens at a mixer that takes no tokens: ``raise``, or ``bypass`` it (recorded in the model's events)."""

    def __post_init__(self) -> None:
        if not isinstance(self.registers, int) or isinstance(self.registers, bool) or self.registers < 0:
            raise expected("global_tokens registers", "a whole number, at least 0", self.registers, "registers=1")
        if self.count < 1:
            raise expected("global_tokens", "a class token or at least one register", self.registers, "registers=1")
        if self.on_unsupported not in ("raise", "bypass"):
            raise expected("global_tokens on_unsupported", "'raise' or 'bypass'", self.on_unsupported)

    @property
    def count(self) -> int:
        return self.registers + self.class_token
