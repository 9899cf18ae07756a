"""What became of every entry of a state dict that was loaded, swapped or inflated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LoadReport:
    """Every entry of the model and of its source, once, under our names."""

    source: str
    """Where the weights come from: a file and the entry in it, a state dict, or the model before a swap."""
    kept: dict[str, int] = field(default_factory=dict)
    """Our key to its number of elements: loaded as it is (a matrix for a 1x1 convolution holds the same numbers)."""
    adapted: dict[str, str] = field(default_factory=dict)
    """Our key: how it was made from entries of the source."""
    new: dict[str, str] = field(default_factory=dict)
    """Our key, not from the source: why, and what it starts as."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Key in the source that the model has no use for: why."""
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Our adapted key to the source's keys, where it is not made of the one with the same name."""
    notes: list[str] = field(default_factory=list)
    """What else differs: options of a mixer, what the model computes."""
    output_change: float | None = None
    """Relative change of the model's output by the last swap or inflation, where it was measured."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Elements of every entry of the model; filled by :meth:`check`."""
    given: dict[str, int] = field(default_factory=dict)
    """Elements of every entry of the source, likewise."""

    @property
    def complete(self) -> bool:
        """Everything in the source went into the model, and nothing else is in the model."""
        return not (self.adapted or self.new or self.dropped)

    def shares(self) -> dict[str, float]:
        """Parts of the model's numbers that were ``kept``, ``adapted`` and are ``new``, which sum to 1, and the part of
        the source's numbers that was ``dropped``."""
        total, source = max(sum(self.sizes.values()), 1), max(sum(self.given.values()), 1)
        own = {kind: sum(self.sizes[k] for k in getattr(self, kind)) / total for kind in ("kept", "adapted", "new")}
        return {**own, "dropped": sum(self.given[k] for k in self.dropped) / source}

    def origins_of(self, key: str) -> tuple[str, ...]:
        """Keys of the source that an entry was made of; none for a new one."""
        return () if key in self.new else self.origins.get(key, (key,))

    def summary(self) -> str:
        """One line, then one a key that was not simply kept, then the notes."""
        others = {"adapted": self.adapted, "new": self.new, "dropped": self.dropped}
        counts = ", ".join([f"{len(self.kept)} kept", *(f"{len(entries)} {kind}" for kind, entries in others.items())])
        shares = ", ".join(f"{share:.1%} {kind}" for kind, share in self.shares().items() if kind != "dropped")
        shares += f" of {sum(self.sizes.values()):,} numbers; {self.shares()['dropped']:.1%} of the source's dropped"
        lines = [f"  {kind} {key}: {why}" for kind, entries in others.items() for key, why in entries.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([f"weights from {self.source}: {counts} ({shares})", *lines])

    def __str__(self) -> str:
        return self.summary()

    def check(self, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        """Our own invariant: every entry of the model is accounted for once, and so is every entry of the source."""
        self.sizes = {k: v.numel() for k, v in own.items()}
        self.given = {k: v.numel() for k, v in given.items()}
        self._check_keys()

    def _check_keys(self) -> None:
        listed = [*self.kept, *self.adapted, *self.new]
        assert sorted(listed) == sorted(self.sizes), "a load report must list every entry of the model once"
        used = {origin for key in (*self.kept, *self.adapted) for origin in self.origins_of(key)}
        assert not used & set(self.dropped), "an entry that was used cannot be dropped"
        assert used | set(self.dropped) == set(self.given), "a load report must list every entry of the source"

    def then(self, after: LoadReport) -> LoadReport:
        """One report for two steps: this one, and what was then done to the model that it describes."""
        out = LoadReport(self.source, notes=[*self.notes, *after.notes], output_change=after.output_change)
        for key in after.sizes:
            origins = after.origins_of(key)
            if key in after.new:
                out.new[key] = after.new[key]
            elif all(origin in self.new for origin in origins):  # made of what was new itself
                out.new[key] = self.new[origins[0]]
            elif key in after.kept and key in self.kept:
                out.kept[key] = after.kept[key]
            else:
                steps = [self.adapted.get(origin) for origin in origins] + [after.adapted.get(key)]
                out.adapted[key] = ", then ".join(dict.fromkeys(step for step in steps if step))
                first = tuple(dict.fromkeys(o for origin in origins for o in self.origins_of(origin)))
                if first != (key,):
                    out.origins[key] = first
        used = {o for key in (*out.kept, *out.adapted) for o in out.origins_of(key)}
        later = {o: why for key, why in after.dropped.items() for o in self.origins_of(key)}
        out.dropped = {o: why for o, why in {**self.dropped, **later}.items() if o not in used}
        out.sizes, out.given = dict(after.sizes), dict(self.given)
        out._check_keys()
        return out
