"""Less data on purpose: seeded shares of the training patients, each inside every larger one of the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
SEEDS = (42, 2024, 2025, 2026, 2027)


def fraction_subset(
    patients: Sequence[str] | ArrayLike,
    fraction: float,
    seed: int,
    labels: ArrayLike | None = None,
    *,
    first_rows: bool = False,
) -> NDArray[np.int64]:
    """Row numbers, ascending, of all rows of a share of the patients.

    Which patients does not depend on the order of the rows, and grows with the fraction: 20 % holds the 10 % of the same seed.

    Args:
        patients: (N,) whose each row is.
        fraction: of the patients, in (0, 1]; at least one is taken.
        seed: of the draw.
        labels: (N,) or (N, K) values to stratify by. Every share then holds each combination that patients have in proportion,
            to about one patient. Rows of different combinations make a combination of their own.
        first_rows: take the first rows of the table instead, as Cardiac-CLIP's release: no seed changes it, any order of the
            table (by date, by site, by class) becomes a bias, and a patient may be cut in two.

    Raises:
        ConfigError: no rows, a fraction outside (0, 1], or labels of another length.
    """
    who = np.asarray(patients)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction {fraction} is not in (0, 1]; give 0.1 for 10 %")
    if not len(who):
        raise ConfigError("no rows to take a fraction of; is the training split empty?")
    if first_rows:
        return np.arange(max(1, int(len(who) * fraction + 1e-9)))
    names, inverse = np.unique(who, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names)) if labels is None else _stratified(_strata(inverse, np.asarray(labels)), rng)
    n_taken = max(1, int(np.floor(fraction * len(names) + 0.5 + 1e-9)))
    return np.flatnonzero(np.isin(inverse, order[:n_taken]))


def _strata(inverse: NDArray[np.int64], labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """(P,) stratum of each patient: the set of label combinations among the rows."""
    if len(labels) != len(inverse):
        raise ConfigError(f"{len(labels)} rows of labels for {len(inverse)} rows; give one for each")
    combination = np.unique(labels.reshape(len(labels), -1), axis=0, return_inverse=True)[1].ravel()
    sets: list[set[int]] = [set() for _ in range(int(inverse.max()) + 1)]
    for patient, value in zip(inverse, combination, strict=True):
        sets[patient].add(int(value))
    known = {key: k for k, key in enumerate(sorted({tuple(sorted(s)) for s in sets}))}
    return np.array([known[tuple(sorted(s))] for s in sets], dtype=np.int64)


def _stratified(strata: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Patients in an order whose every beginning holds the strata in proportion.

    Each stratum spreads its patients evenly over [0, 1), in random order and from a random start.
    """
    place = np.empty(len(strata))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
