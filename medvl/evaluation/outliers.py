"""Is a region like anything the model was trained on? Mahalanobis distance of its features, with the limit from validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
IMAGE_SPREAD = 0.001  # `least_spread` for features of the image itself, which are few and none of them dead


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What is familiar for one kind of region.

    Args:
        mean: (P,) float32 of training features; basis: (P, K) float32 whitening directions; rest_scale: of what they leave out.
        limit: distance beyond which a region is out of distribution.

    Source: Lee et al. 2018 without classes; the residual outside the K leading directions is added as one more term.
    """

    mean: Array
    basis: Array
    rest_scale: float
    limit: float

    def distance(self, features: Array) -> NDArray[np.float64]:
        """(N,) distances, about 1 for a typical training region, of (N, P) features."""
        centred = (features - self.mean).astype(np.float64)
        white = centred @ self.basis.astype(np.float64)
        norms = np.linalg.norm(self.basis, axis=0).astype(np.float64)
        inside = (white / norms) ** 2
        rest = np.maximum((centred**2).sum(1) - inside.sum(1), 0.0)
        k = self.basis.shape[1]
        return np.asarray(np.sqrt(((white**2).sum(1) + rest / self.rest_scale**2) / (k + 1)))


def fit(
    training: Array, validation: Array, n_directions: int = 48, share: float = 0.995, least_spread: float = 0.01
) -> Familiarity:
    """Fit on (N, P) training features; the limit is the `share` quantile of validation distances, plus a tenth.

    Directions along which training features hardly vary (less than `least_spread` of the widest) are not whitened: division by
    their spread would let rounding decide. They count in the residual, whose scale has the same floor.
    """
    mean = training.mean(0)
    _, singular, rows = np.linalg.svd((training - mean).astype(np.float64), full_matrices=False)
    spread = singular / np.sqrt(len(training))
    floor = max(least_spread * float(spread[0]), 1e-6)
    k = max(1, min(n_directions, len(singular) - 1, int((spread > floor).sum())))
    basis = (rows[:k] / np.maximum(spread[:k, None], floor)).T.astype(np.float32)
    rest = max(float(np.sqrt((spread[k:] ** 2).sum())), floor)
    draft = Familiarity(mean.astype(np.float32), basis, rest, float("inf"))
    limit = 1.1 * float(np.quantile(draft.distance(validation), share))
    return Familiarity(draft.mean, basis, rest, limit)
