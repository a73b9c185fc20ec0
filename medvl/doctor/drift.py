"""Do studies look like others? Each question has an exact or simulated p value; one adjustment covers all questions asked.

Percentiles are counts among the bundle's n reference regions, so the two-sample Kolmogorov-Smirnov test against these n is had
from the percentiles alone: only the order of values counts. A test against an even distribution would forget that the reference
is a sample too, and raise false alarms.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, chi2, ks_2samp

from medvl.evaluation.intervals import proportion

Array = NDArray[np.float64]
LEAST = 20
DECILES = 10
STRANGE_SHARE = (
    0.005  # beyond the limit of familiarity lay at most this share of validation regions: medvl.evaluation.outliers.fit
)
DRAWS = 99_999
EXACT = 5000


@dataclass(frozen=True)
class Shift:
    """One comparison.

    Args:
        statistic: largest distance between the two distribution functions; of categories, Pearson's chi squared.
        p: two-sided, not adjusted.
        higher: chance that a value from here is higher than one from there, ties half; 0.5 is no shift. None of categories.
        n, n_against: values on both sides.
    """

    statistic: float
    p: float
    higher: float | None
    n: int
    n_against: int


def between(values: ArrayLike, against: ArrayLike) -> Shift:
    """Two samples of numbers: Kolmogorov-Smirnov, exact up to 5000 values in all, conservative with ties.

    Raises:
        ValueError: a side is empty or holds NaN.
    """
    a, b = np.asarray(values, dtype=np.float64), np.asarray(against, dtype=np.float64)
    if not len(a) or not len(b) or np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a comparison needs numbers on both sides")
    found = ks_2samp(a, b, method="asymp")
    statistic = float(found.statistic)
    p = exact_p(statistic, len(a), len(b)) if len(a) + len(b) <= EXACT else float(found.pvalue)
    ordered = np.sort(b)
    below, upto = np.searchsorted(ordered, a, "left"), np.searchsorted(ordered, a, "right")
    return Shift(statistic, p, float((below + upto).mean() / 2 / len(b)), len(a), len(b))


def exact_p(statistic: float, n: int, m: int) -> float:
    """Chance that two samples of n and m values of one distribution lie at least `statistic` apart.

    Every order of the values is a path from (0, 0) to (n, m); counted is the share of paths that touch |i/n - j/m| >= statistic,
    one anti-diagonal after another. All terms are positive, so small p values keep their digits.

    Source: Hodges 1958.
    """
    i = np.arange(n + 1)
    touched = np.zeros(n + 1)
    for step in range(1, n + m + 1):
        j = step - i
        inside = (j >= 0) & (j <= m)
        moved = touched * j / step
        moved[1:] += touched[:-1] * i[1:] / step
        moved[np.abs(i / n - j / m) >= statistic - 1e-9] = 1.0
        touched = np.where(inside, moved, 0.0)
    return min(1.0, float(touched[n]))


def reference_ranks(percentiles: ArrayLike, n_reference: int) -> tuple[Array, Array]:
    """Values with the order that `percentiles` (0 to 100) had among `n_reference` values: (theirs, those of the reference).

    A percentile is 100 (number below + half of the number equal) / n, so twice the rank is a whole number; it comes back from
    one decimal while n is at most 500.
    """
    twice = np.round(np.asarray(percentiles, dtype=np.float64) / 100 * 2 * n_reference)
    return twice, np.arange(1, 2 * n_reference, 2, dtype=np.float64)


def against_reference(percentiles: ArrayLike, n_reference: int) -> Shift:
    """Answers against the bundle's reference regions, from percentiles alone; equal to `between` on the scores themselves."""
    return between(*reference_ranks(percentiles, n_reference))


def stability(percentiles: ArrayLike, n_reference: int) -> tuple[float, float, list[int]]:
    """Population stability index over ten bins that hold a tenth of the reference each.

    Returns:
        The index, the value that it stays below in 95 % of samples of this size without any shift, and the counts.

    Source: index after Lewis 1994, half a count added to every bin; its limit after Yurdakul 2018: (1/m + 1/n) chi squared with
    nine degrees of freedom. The usual 0.1 and 0.25 do not know the sample size.
    """
    values = np.asarray(percentiles, dtype=np.float64)
    counts = np.bincount(np.minimum((values / 100 * DECILES).astype(np.int64), DECILES - 1), minlength=DECILES)
    shares = (counts + 0.5) / (len(values) + DECILES / 2)
    index = float(((shares - 1 / DECILES) * np.log(shares * DECILES)).sum())
    limit = (1 / len(values) + 1 / n_reference) * float(chi2.ppf(0.95, DECILES - 1))
    return index, limit, counts.tolist()


def categories(values: Sequence[Hashable], against: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0) -> Shift:
    """Two samples of categories: Pearson's chi squared with its p value from `draws` tables of the same margins.

    Raises:
        ValueError: a side is empty.
    """
    if not values or not against:
        raise ValueError("a comparison needs values on both sides")
    names = {name: k for k, name in enumerate(sorted({*values, *against}, key=str))}
    here = np.bincount([names[v] for v in values], minlength=len(names))
    total = here + np.bincount([names[v] for v in against], minlength=len(names))
    expected = total * len(values) / total.sum()
    scale = 1 / expected + 1 / (total - expected)
    seen = float(((here - expected) ** 2 * scale).sum())
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(total, len(values), size=draws)
    beyond = int((((drawn - expected) ** 2 * scale).sum(1) >= seen - 1e-9).sum())
    return Shift(seen, (beyond + 1) / (draws + 1), None, len(values), len(against))


def too_many_strange(n_strange: int, n: int, looks: int) -> float:
    """P value (one-sided, exact) of at least `n_strange` of `n` regions beyond the limit, where validation had 0.5 % a look."""
    return float(binom.sf(n_strange - 1, n, min(1.0, STRANGE_SHARE * looks)))


def share(k: int, n: int) -> dict[str, float | int | list[float] | None]:
    """A share with its Wilson interval, as plain values; None where there is nothing to share."""
    if not n:
        return {"k": k, "n": n, "value": None, "ci": None}
    low, high = proportion(k, n)
    return {"k": k, "n": n, "value": k / n, "ci": [float(low), float(high)]}
