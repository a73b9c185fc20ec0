"""Cox models on all painted patients, pooled out of folds: the penalty of each fold is chosen inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from radiomics_tables import ranked

from medvl.survival.cox import fit_cox
from medvl.survival.measures import harrell

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 5
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranked:
    """(N, P) skewed columns, to be read as normal scores of their rank among training rows."""

    values: Array

    def __getitem__(self, rows: NDArray[np.bool_]) -> Ranked:
        return Ranked(self.values[rows])


Block = Array | Ranked


def out_of_fold(blocks: Sequence[Block], t: Array, e: NDArray[np.bool_], seed: int) -> Array:
    """(N,) risks of patients by models that have not seen them; each block counts the same whatever its width."""
    fold = folds(e, FOLDS, seed)
    risk = np.empty(len(t))
    for k in range(FOLDS):
        train, held = fold != k, fold == k
        inner = folds(e[train], 3, seed + 1)
        scores = []
        for penalty in PENALTIES:
            guess = np.empty(int(train.sum()))
            for m in range(3):
                guess[inner == m] = fit_predict([b[train] for b in blocks], t[train], e[train], inner != m, inner == m, penalty)
            scores.append(harrell(t[train], e[train], guess))
        risk[held] = fit_predict(blocks, t, e, train, held, PENALTIES[int(np.argmax(scores))])
    return risk


def fit_predict(
    blocks: Sequence[Block], t: Array, e: NDArray[np.bool_], train: NDArray[np.bool_], held: NDArray[np.bool_], penalty: float
) -> Array:
    """Risks of held-out rows, standardised to training rows' mean and deviation, so that folds can be pooled."""
    x = np.concatenate([_scaled(block, train) for block in blocks], 1)
    weights = fit_cox(x[train], t[train], e[train], penalty=penalty, ties="breslow").coefficients
    risk = x @ weights
    return np.asarray((risk[held] - risk[train].mean()) / max(float(risk[train].std()), 1e-9))


def _scaled(block: Block, train: NDArray[np.bool_]) -> Array:
    """Centred, of deviation 1 among training rows, and of the same weight whatever the width."""
    b = ranked(block.values[train], block.values) if isinstance(block, Ranked) else block
    return np.asarray((b - b[train].mean(0)) / np.maximum(b[train].std(0), 1e-6) / np.sqrt(b.shape[1] / 4))


def folds(event: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.int64]:
    """(N,) fold numbers with the events spread evenly."""
    rng, out = np.random.default_rng(seed), np.empty(len(event), np.int64)
    for value in (False, True):
        rows = rng.permutation(np.flatnonzero(event == value))
        out[rows] = np.arange(len(rows)) % n
    return out
