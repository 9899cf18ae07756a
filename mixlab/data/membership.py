"""Which case is in which split.

Drawing uses no random generator: cases (or groups) of a class are put in the order of
``sha256(seed, purpose, name)`` and the first ones are taken. The draw is therefore the same in every version of every
library, and a new image does not move the others.

The rules:

* training, validation and test given: they are kept;
* training and test given: a seeded, stratified 15 % of training becomes validation;
* training and validation given: the given validation becomes the test split (it is what others report), and 15 % of
  training becomes validation, so that nothing is chosen on the reported images;
* nothing (or training alone) given: 15 % test and 15 % validation are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixlab.data.card import Event, event
from mixlab.data.raw import SPLITS, RawData
from mixlab.errors import Quoted, expected

FRACTION = 0.15
Indices = NDArray[np.int64]


@dataclass
class Membership:
    """Case numbers of each split, in the order of the data set, and how they came about."""

    indices: dict[str, Indices]
    how: str
    events: list[Event] = field(default_factory=list)


def draw_order(names: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Positions of ``names`` in seeded order."""
    keys = [hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).hexdigest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def make_splits(raw: RawData, seed: int) -> Membership:
    """Training, validation and test cases by the rules above.

    Raises:
        UserError: a class has too few cases, a group is in two given splits, or only validation or test is given.
    """
    groups_apart(raw)
    given = np.array(raw.given) if raw.given is not None else np.full(len(raw.ids), "train")
    indices = {name: np.flatnonzero(given == name) for name in SPLITS if (given == name).any()}
    if "train" not in indices:
        raise expected(f"data {raw.name}", "a training split next to the given ones", sorted(indices))
    unit = "groups" if raw.groups is not None else "cases"
    share = f"{FRACTION:.0%}"
    by_class = "" if raw.task == "segmentation" else ", stratified by class"  # a mask has many classes
    if len(indices) == 1:
        enough(raw, indices["train"], 3)
        indices["train"], indices["test"] = draw(raw, indices["train"], seed, "test")
        rest = FRACTION / (1 - FRACTION)  # of what is left, so that it is the same share of all
        indices["train"], indices["val"] = draw(raw, indices["train"], seed, "val", rest)
        how = f"seeded{by_class}: {share} of the {unit} test, {share} validation (seed {seed})"
        return Membership(indices, how, [event("split", f"no splits given; {how}")])
    if len(indices) == 3:
        enough(raw, indices["train"], 2, grouped=False)
        return Membership(indices, raw.splits)
    enough(raw, indices["train"], 2)
    seeded = "seeded" if raw.task == "segmentation" else "seeded, stratified"
    how = f"{raw.splits}; validation is a {seeded} {share} of the training {unit} (seed {seed})"
    if "val" in indices:
        how = f"{raw.splits}, its validation split used as test; validation is " + how.partition("validation is ")[2]
        indices["test"] = indices["val"]
    indices["train"], indices["val"] = draw(raw, indices["train"], seed, "val")
    return Membership({name: indices[name] for name in SPLITS}, how, [event("split", how)])


def groups_apart(raw: RawData) -> None:
    """Raise when a group (a patient) is in two given splits."""
    if raw.groups is None or raw.given is None:
        return
    seen: dict[str, set[str]] = {}
    for group, split in zip(raw.groups, raw.given, strict=True):
        seen.setdefault(group, set()).add(split)
    divided = [f"{g!r} in {' and '.join(sorted(s))}" for g, s in seen.items() if len(s) > 1]
    if divided:
        got = Quoted(f"{len(divided)} divided: {', '.join(divided[:10])}")
        raise expected(f"data {raw.name}", "each group in one split", got, "moving all images of a group to one split")


def enough(raw: RawData, pool: Indices, need: int, *, grouped: bool = True) -> None:
    """Raise when a class has fewer than ``need`` cases (or groups, which are not divided) in ``pool``; of a
    segmentation set, when there are fewer at all."""
    if raw.task == "multilabel":
        return
    grouped = grouped and raw.groups is not None
    units = unit_names(raw) if grouped else raw.ids
    if raw.task == "segmentation":
        there = len({units[i] for i in pool})
        if there < need:
            raise expected(f"data {raw.name}", f"at least {need} {'groups' if grouped else 'training images'}", there)
        return
    targets = np.asarray(raw.targets)
    few = []
    for label, name in enumerate(raw.classes):
        count = len({units[i] for i in pool if targets[i] == label})
        if count < need:
            few.append(f"{name!r} has {count}")
    if few:
        what = "groups" if grouped else "training images"
        got = Quoted(", ".join(few))
        hint = "adding images, or leaving the class out"
        raise expected(f"data {raw.name}", f"at least {need} {what} of each class", got, hint)


def unit_names(raw: RawData) -> Sequence[str]:
    """What is drawn as one: the group of a case, or the case itself."""
    return raw.groups if raw.groups is not None else raw.ids


def draw(raw: RawData, pool: Indices, seed: int, purpose: str, share: float = FRACTION) -> tuple[Indices, Indices]:
    """Divide ``pool`` into what stays and a stratified share for ``purpose``; groups stay whole."""
    strata, names = raw.strata(), unit_names(raw)
    members: dict[str, list[int]] = {}
    for i in pool:
        members.setdefault(names[i], []).append(int(i))
    by_class: dict[int, list[str]] = {}
    for name, cases in members.items():
        by_class.setdefault(int(np.bincount(strata[cases]).argmax()), []).append(name)
    taken: list[int] = []
    for units in by_class.values():
        ordered = [units[i] for i in draw_order(units, seed, purpose)]
        taken += [case for name in first_units(ordered, members, share) for case in members[name]]
    chosen = np.array(sorted(taken), dtype=np.int64)
    return np.setdiff1d(pool, chosen), chosen


def first_units(ordered: list[str], members: dict[str, list[int]], share: float) -> list[str]:
    """Units from the front until their cases are the share; one that would overshoot by half is passed over."""
    if len(ordered) < 2:
        return []  # the only group of its class stays in training
    goal = max(1, int(share * sum(len(members[name]) for name in ordered) + 0.5))
    count, chosen = 0, []
    for name in ordered:
        if count < goal and count + len(members[name]) <= 1.5 * goal:
            chosen.append(name)
            count += len(members[name])
    return chosen or [min(ordered, key=lambda name: len(members[name]))]


def low_data(raw: RawData, train: Indices, per_class: int, seed: int) -> tuple[Indices, Event]:
    """``per_class`` training cases of each class; a larger subset contains the smaller one.

    Raises:
        UserError: the set is not a classification set.
    """
    if raw.task != "classification":
        raise expected("data.train_per_class", "a classification set", raw.task, "leaving it out")
    kept: list[int] = []
    short = []
    targets = np.asarray(raw.targets)
    for label, name in enumerate(raw.classes):
        cases = [int(i) for i in train if targets[i] == label]
        order = draw_order([raw.ids[i] for i in cases], seed, "train_per_class")
        kept += [cases[k] for k in order[:per_class]]
        if len(cases) < per_class:
            short.append(f"{name} has only {len(cases)}")
    message = f"training on {per_class} images of each class: {len(kept)} of {len(train)} (seed {seed})"
    message += f"; {', '.join(short)}" if short else ""
    return np.array(sorted(kept), dtype=np.int64), event("subset", message)
