"""Shares of patients: whole, nested, repeatable, in proportion; and the first rows, as one release takes them."""

from itertools import pairwise

import numpy as np
import pytest

from medvl.errors import ConfigError
from medvl.evaluation.fractions import FRACTIONS, SEEDS, fraction_subset

RNG = np.random.default_rng(0)
PATIENTS = np.array([f"p{k:03d}" for k in range(200) for _ in range(1 + k % 3)])[RNG.permutation(399)]
OF_PATIENT = {name: int(k % 10 == 0) for k, name in enumerate(sorted(set(PATIENTS)))}
LABELS = np.array([OF_PATIENT[p] for p in PATIENTS])


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("seed", SEEDS)
def test_whole_patients_nested_and_counted(seed: int, labels: np.ndarray | None) -> None:
    taken = [fraction_subset(PATIENTS, f, seed, labels) for f in FRACTIONS]
    for rows, fraction in zip(taken, FRACTIONS, strict=True):
        names = set(PATIENTS[rows])
        assert len(names) == round(200 * fraction)
        assert rows.tolist() == np.flatnonzero(np.isin(PATIENTS, list(names))).tolist()
    for small, large in pairwise(taken):
        assert set(small) < set(large)
    assert taken[-1].tolist() == list(range(399))


def test_seed_decides_and_row_order_does_not() -> None:
    first = set(PATIENTS[fraction_subset(PATIENTS, 0.1, 42)])
    assert first == set(PATIENTS[fraction_subset(PATIENTS, 0.1, 42)])
    assert first == set(np.sort(PATIENTS)[fraction_subset(np.sort(PATIENTS), 0.1, 42)])
    others = [set(PATIENTS[fraction_subset(PATIENTS, 0.1, seed)]) for seed in range(1000)]
    counts = np.array([sum(name in other for other in others) for name in OF_PATIENT])
    # 1000 draws of a tenth: every patient about 100 times, standard deviation 9.5.
    assert counts.mean() == 100
    assert counts.min() > 60
    assert counts.max() < 140


def test_strata_stay_in_proportion_at_every_size() -> None:
    loose = []
    for seed in SEEDS:
        for fraction in (0.05, 0.1, 0.25, 0.5):
            names = set(PATIENTS[fraction_subset(PATIENTS, fraction, seed, LABELS)])
            assert abs(sum(OF_PATIENT[n] for n in names) - 20 * fraction) <= 1
            free = set(PATIENTS[fraction_subset(PATIENTS, fraction, seed)])
            loose.append(abs(sum(OF_PATIENT[n] for n in free) - 20 * fraction))
    assert max(loose) > 1


def test_patients_of_several_labels_and_columns() -> None:
    patients = np.repeat(np.arange(60), 2)
    columns = np.stack([patients % 2, np.tile([0, 1], 60) * (patients % 3 == 0)], 1)
    for seed in SEEDS:
        names = np.unique(patients[fraction_subset(patients, 0.5, seed, columns)])
        assert len(names) == 30
        for group in ((names % 2 == 0) & (names % 3 == 0), (names % 2 == 1) & (names % 3 == 0)):
            assert abs(group.sum() - 5) <= 1


def test_first_rows_are_the_first_rows() -> None:
    assert fraction_subset(PATIENTS, 0.1, 42, first_rows=True).tolist() == list(range(39))
    assert fraction_subset(PATIENTS, 0.1, 7, first_rows=True).tolist() == list(range(39))
    assert fraction_subset(PATIENTS[:5], 0.01, 42, first_rows=True).tolist() == [0]
    assert len(set(PATIENTS[fraction_subset(PATIENTS[:5], 0.01, 42)])) == 1


def test_says_what_it_cannot_take() -> None:
    for fraction in (0, -0.1, 1.5, 10):
        with pytest.raises(ConfigError, match=r"not in \(0, 1\]"):
            fraction_subset(PATIENTS, fraction, 42)
    with pytest.raises(ConfigError, match="no rows"):
        fraction_subset([], 0.1, 42)
    with pytest.raises(ConfigError, match="3 rows of labels for 399"):
        fraction_subset(PATIENTS, 0.1, 42, [0, 1, 0])
