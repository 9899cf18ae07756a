"""What became of every entry of a state dict that was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LoadReport:
    """Every entry of the model and of the file, once, under our names."""

    source: str
    """Where the weights come from: a file and the entry in it, or a state dict."""
    kept: dict[str, int] = field(default_factory=dict)
    """Our key to its number of elements: loaded as it is (a matrix for a 1x1 convolution holds the same numbers)."""
    adapted: dict[str, str] = field(default_factory=dict)
    """Our key: how it was made from the file's entry."""
    new: dict[str, str] = field(default_factory=dict)
    """Our key, not in the file: why it keeps its fresh value."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Key in the file that the model has no use for: why."""

    @property
    def complete(self) -> bool:
        """Everything in the file went into the model, and nothing else is in the model."""
        return not (self.adapted or self.new or self.dropped)

    def summary(self) -> str:
        """One line, then one a key that was not simply kept."""
        others = {"adapted": self.adapted, "new": self.new, "dropped": self.dropped}
        counts = ", ".join([f"{len(self.kept)} kept", *(f"{len(entries)} {kind}" for kind, entries in others.items())])
        lines = [f"  {kind} {key}: {why}" for kind, entries in others.items() for key, why in entries.items()]
        return "\n".join([f"weights from {self.source}: {counts}", *lines])

    def check(self, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        """Our own invariant: every entry of the model is accounted for once, and so is every entry of the file."""
        used = [*self.kept, *self.adapted]
        assert sorted([*used, *self.new]) == sorted(own), "a load report must list every entry of the model once"
        assert sorted([*used, *self.dropped]) == sorted(given), "a load report must list every entry of the file once"
