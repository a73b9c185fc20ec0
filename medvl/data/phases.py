"""Patients with several contrast phases: one at random a visit in training, the mean over those there are in use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cohort import Cohort
from medvl.errors import ConfigError


def available(cohort: Cohort, min_covered: float) -> NDArray[np.bool_]:
    """(N, P, R) whether a patient has that scan and it holds enough of the region; P is 1 for a cohort of single scans."""
    covered = cohort.covered[:, None] if cohort.phase_covered is None else cohort.phase_covered
    return np.asarray(covered >= min_covered)


def pick_phase(rng: np.random.Generator, there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One scan for each patient, all that the patient has with equal chances; all regions of a patient share it.

    Args:
        rng: draws one number a patient.
        there: (N, P) which scans each patient has.

    Returns:
        (N,) columns of `there`.

    Raises:
        ConfigError: a patient has no scan.
    """
    counts = _counts(there)
    nth = (rng.random(len(there)) * counts).astype(np.int64)
    return np.asarray(np.argmax(np.cumsum(there, axis=1) > nth[:, None], axis=1), dtype=np.int64)


def take(cohort: Cohort, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> NDArray[np.int16]:
    """(n, R, D, H, W) HU of these rows, each in its picked scan; of a cohort of single scans, the only one."""
    return np.asarray(cohort.hu[rows] if cohort.phase_hu is None else cohort.phase_hu[rows, picks])


def column_of(cohort: Cohort, phase: str) -> NDArray[np.int64]:
    """(N,) column of the scans called `phase`, -1 where a patient has none.

    Raises:
        ConfigError: no patient has one.
    """
    if phase not in cohort.phases:
        raise ConfigError(
            f"no patient has a scan in phase {phase!r}; the cohort has {', '.join(cohort.phases) or 'single scans'}"
        )
    names = [case["phases"] for case in cohort.cases]
    return np.array([row.index(phase) if phase in row else -1 for row in names], np.int64)


def fuse(scores: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """(N, ...) mean of (N, P, ...) logits or embeddings over the scans that are there; what stands for the others is not read.

    Args:
        scores: one value or vector for each patient and scan, of any floating type, which is kept.
        there: (N, P) which of them count.

    Raises:
        ConfigError: the shapes do not fit, or a patient has no scan.
    """
    if scores.shape[:2] != there.shape:
        raise ConfigError(f"scores of {scores.shape[:2]} patients and scans do not fit a mask of {there.shape}")
    counts = _counts(there).reshape(-1, *(1,) * (scores.ndim - 2))
    mask = there.reshape(*there.shape, *(1,) * (scores.ndim - 2))
    return np.asarray((np.where(mask, scores, 0).sum(axis=1) / counts).astype(scores.dtype))


def _counts(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) scans of each patient, at least one."""
    counts = there.sum(axis=1)
    if (counts == 0).any():
        raise ConfigError(f"{int((counts == 0).sum())} of {len(there)} patients have no usable scan; leave those rows out")
    return np.asarray(counts, dtype=np.int64)
