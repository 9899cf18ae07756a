"""The arithmetic of :mod:`mixlab.studies.statistics`: critical values, groups of ties, resamples of test cases.

Small tools without any notion of a study: the variance of a mean that has two sources and the quantile that goes with
it, the compact letter display, and the weights of a paired bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The adjusted p values between which critical values are tabulated.
SMALLEST_P = 1e-6
_P_GRID = np.geomspace(SMALLEST_P, 0.9999, 400)


@lru_cache(maxsize=64)
def _quantiles(labels: int, df: float) -> Floats:
    """Quantiles of the studentised range over sqrt 2 on the grid of p values, largest first."""
    from scipy.interpolate import PchipInterpolator
    from scipy.stats import studentized_range, t

    if labels == 2:
        return np.asarray(t.isf(_P_GRID / 2.0, df))

    # With one degree of freedom the tail falls as 1/q only, so the grid must reach far.
    top = 80.0 if df > 8 else float(40.0 * (1.0 / SMALLEST_P) ** (1.0 / max(df, 1.0)))
    grid = np.geomspace(1e-3, top, 60)
    tail = np.asarray(studentized_range.sf(grid, labels, df))
    useful = (tail > SMALLEST_P * 1e-3) & (np.diff(tail, prepend=2.0) < 0.0)
    log_q = PchipInterpolator(np.log(tail[useful])[::-1], np.log(grid[useful])[::-1])(np.log(_P_GRID))
    return np.asarray(np.exp(log_q) / np.sqrt(2.0))


def mixed_quantiles(labels: int, seed_share: float, seed_df: float) -> tuple[Floats, Floats]:
    """Critical values of a difference whose variance has an uncertain and a well-known part.

    The variance share ``seed_share`` was estimated with ``seed_df`` degrees of freedom, the rest with very many. The
    critical value is the average of the two quantiles weighted by these shares (Cochran and Cox), which never rejects
    too often, where Satterthwaite's approximation does with one or two degrees of freedom. Quantiles are those of
    Tukey's studentised range over all pairs of ``labels``; with two labels that is Student's t.

    Returns:
        The grid of p values, ascending, and the critical value of each.
    """
    certain = _quantiles(labels, np.inf)
    if seed_share <= 0.0:
        return _P_GRID, certain
    return _P_GRID, seed_share * _quantiles(labels, float(seed_df)) + (1.0 - seed_share) * certain


def p_value(statistic: float, labels: int, seed_share: float, seed_df: float) -> float:
    """Two-sided p value of ``|difference| / standard error``, adjusted for all pairs of ``labels``."""
    p, critical = mixed_quantiles(labels, seed_share, seed_df)
    return float(np.exp(np.interp(abs(statistic), critical[::-1], np.log(p)[::-1], right=np.log(SMALLEST_P), left=0.0)))


def critical_value(alpha: float, labels: int, seed_share: float, seed_df: float) -> float:
    """The statistic beyond which the adjusted p value is below ``alpha``."""
    p, critical = mixed_quantiles(labels, seed_share, seed_df)
    return float(np.exp(np.interp(np.log(alpha), np.log(p), np.log(critical))))


@dataclass(frozen=True)
class MeanVariance:
    """A variance in two parts, and the share of it that few degrees of freedom stand behind."""

    total: float
    training: float | None
    cases: float
    seed_share: float


def mean_variance(mean_square: float | None, block: Floats, spread: float) -> MeanVariance:
    """The variance of a mean over repeated trainings, on test cases that all of them share.

    Args:
        mean_square: Variance over trainings, as seen on these test cases; None where nothing was trained twice.
        block: Covariance over test cases between the trainings, ``(cells, cells)``.
        spread: The factor from the variance of one training to that of the mean: one over their number, or more.
    """
    cells, cases = len(block), max(0.0, float(block.mean()))
    if mean_square is None:
        return MeanVariance(cases, None, cases, 0.0)
    explained = 0.0
    if cells > 1:
        on = float(np.trace(block)) / cells
        explained = max(0.0, on - (float(block.sum()) - on * cells) / (cells * (cells - 1)))
    training = max(0.0, mean_square - explained) * spread
    total = training + cases
    # All of what the mean square measured is uncertain, also the part that the test cases explain.
    return MeanVariance(total, training, cases, min(1.0, mean_square * spread / total) if total > 0 else 0.0)


def letter_groups(names: list[str], differ: set[frozenset[str]]) -> dict[str, str]:
    """Compact letter display: two names share a letter exactly when they are not known to differ.

    Piepho's insert-and-absorb algorithm (2004). Letters follow the order of ``names``: the first gets ``a``.

    Args:
        names: In the order in which letters are given out.
        differ: The pairs that differ.
    """
    groups: list[set[str]] = [set(names)]
    for pair in sorted(differ, key=lambda p: sorted(names.index(n) for n in p)):
        first, second = sorted(pair, key=names.index)
        split: list[set[str]] = []
        for group in groups:
            split += [group - {first}, group - {second}] if pair <= group else [group]
        groups = _absorb(split)
    groups.sort(key=lambda group: sorted(names.index(n) for n in group))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if name in group) for name in names}


def _absorb(groups: list[set[str]]) -> list[set[str]]:
    """Drop groups that lie within another one."""
    kept: list[set[str]] = []
    for group in sorted(groups, key=len, reverse=True):
        if not any(group <= other for other in kept):
            kept.append(group)
    return kept


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"


def case_weights(strata: NDArray[np.generic] | None, cases: int, resamples: int, random_state: int) -> Floats:
    """How often each test case occurs in each bootstrap resample, ``(resamples, cases)``.

    With ``strata`` (the true class of every case) each class keeps its size, so that no resample loses a class.
    """
    rng = np.random.default_rng(random_state)
    if strata is None:
        return rng.multinomial(cases, np.full(cases, 1.0 / cases), size=resamples).astype(np.float64)
    weights = np.zeros((resamples, cases))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        share = np.full(len(members), 1.0 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=resamples)
    return weights
