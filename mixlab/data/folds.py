"""Cross-validation over the training and validation cases; the test split is left as it is."""

from __future__ import annotations

import warnings

import numpy as np

from mixlab.data.card import event
from mixlab.data.membership import Indices, Membership, enough, unit_names
from mixlab.data.raw import RawData
from mixlab.errors import Quoted, expected


def cross_validation(raw: RawData, splits: Membership, *, folds: int, fold: int | None, seed: int) -> Membership:
    """The splits of one fold: its cases validate, the other folds' train.

    Folds are stratified by class, and no group is divided (scikit-learn's StratifiedGroupKFold and StratifiedKFold).

    Raises:
        UserError: the set's splits are fixed, no fold was chosen, or a class has fewer cases (or groups) than folds.
    """
    if raw.fixed_splits:
        hint = "leaving folds out"
        raise expected("data.folds", f"no folds for {raw.name}, whose splits are {raw.splits}", folds, hint)
    if fold is None:
        raise expected("data.fold", f"a fold from 0 to {folds - 1} next to folds: {folds}", None, "0")
    pool = np.sort(np.concatenate([splits.indices["train"], splits.indices["val"]]))
    enough(raw, pool, folds)
    units = {unit_names(raw)[i] for i in pool}
    if len(units) < folds:
        raise expected("data.folds", f"at most {len(units)} folds, one a case or group", folds, str(len(units)))
    train, val = _fold(raw, pool, folds, fold, seed)
    missing = missing_classes(raw, train)
    if missing and raw.task == "classification":  # of many labels a rare one may be absent; that is recorded
        got = Quoted(f"none of {', '.join(missing)}")
        raise expected(f"data.fold {fold} of {folds}", "training cases of each class", got, "fewer folds")
    grouped = ", grouped" if raw.groups is not None else ""
    drawn = "seeded" if raw.task == "segmentation" else "stratified"
    how = f"fold {fold} of {folds} over training and validation cases, {drawn}{grouped} (seed {seed})"
    how += f"; test: {splits.how}"
    indices = {"train": train, "val": val, "test": splits.indices["test"]}
    return Membership(indices, how, [*splits.events, event("fold", how)])


def _fold(raw: RawData, pool: Indices, folds: int, fold: int, seed: int) -> tuple[Indices, Indices]:
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    strata = raw.strata()[pool]
    groups = None if raw.groups is None else np.array(raw.groups)[pool]
    if groups is not None:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    elif np.bincount(strata)[np.unique(strata)].min() >= folds:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    else:  # a rare combination of labels in a multi-label set
        splitter = KFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # rare combinations of labels: folds without a label are recorded by those who asked for them
        warnings.filterwarnings("ignore", message="The least populated class in y")
        train, val = list(splitter.split(np.zeros(len(pool)), strata, groups))[fold]
    return pool[np.sort(train)], pool[np.sort(val)]


def missing_classes(raw: RawData, indices: Indices) -> list[str]:
    """Classes without a case among ``indices``; none for a segmentation set."""
    if raw.task == "segmentation":
        return []
    if raw.task == "multilabel":
        present = set(np.flatnonzero((np.asarray(raw.targets)[indices] > 0).any(axis=0)))
    else:
        present = set(np.asarray(raw.targets)[indices].tolist())
    return [name for label, name in enumerate(raw.classes) if label not in present]
