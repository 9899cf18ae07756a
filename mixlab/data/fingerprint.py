"""The data's fingerprint: what they contain, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from mixlab.data.membership import Membership
from mixlab.data.raw import RawData

VERSION = 1


def fingerprint(raw: RawData, members: Membership, digests: dict[int, str], masks: dict[int, str] | None = None) -> str:
    """SHA-256 over task, class names, and content and label of each case of each split in its order.

    Args:
        digests: SHA-256 of each case's file or pixels.
        masks: of a segmentation set, SHA-256 of each case's mask.
    """
    total = hashlib.sha256(f"mixlab data {VERSION}\n{raw.task}\n".encode())
    for name in raw.classes:
        total.update(f"class {name}\n".encode())
    if raw.overlapping:
        total.update(b"overlapping\n")
    if raw.ignore_label is not None:
        total.update(f"ignore {raw.ignore_label}\n".encode())
    labels = _label_digests(raw) if masks is None else {i: bytes.fromhex(text) for i, text in masks.items()}
    for split, indices in members.indices.items():
        total.update(f"split {split} {len(indices)}\n".encode())
        for i in indices:
            total.update(digests[int(i)].encode() + labels[int(i)])
    return total.hexdigest()


def _label_digests(raw: RawData) -> dict[int, bytes]:
    targets = np.asarray(raw.targets).astype("<i8")
    return {i: hashlib.sha256(np.ascontiguousarray(target).tobytes()).digest() for i, target in enumerate(targets)}


def duplicates(raw: RawData, members: Membership, digests: dict[int, str]) -> list[str]:
    """Sentences about exact copies: in two splits, or in two classes."""
    where: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for split, indices in members.indices.items():
        for i in indices:
            where[digests[int(i)]][split].append(int(i))
    found = []
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        copies = [i for splits in where.values() if first in splits for i in splits.get(second, ())]
        if copies:
            total = len(members.indices[second])
            names = ", ".join(raw.ids[i] for i in copies[:3]) + (", ..." if len(copies) > 3 else "")
            verb = "occurs" if len(copies) == 1 else "occur"
            found.append(f"{len(copies)} of {total} {second} images also {verb} in {first} ({names})")
    if raw.task == "classification":
        labels = np.asarray(raw.targets)
        mixed = [d for d, s in where.items() if len({int(labels[i]) for cases in s.values() for i in cases}) > 1]
        if mixed:
            found.append(f"number of images that occur with two different labels: {len(mixed)}")
    return found
