"""How far the numbers of an exported graph lie from those of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from medvl.errors import MedvlError

TOLERANCE = 1e-4


class ParityError(MedvlError):
    """An exported graph gives other numbers than the model."""


@dataclass(frozen=True)
class Difference:
    """Between what was expected and what was found.

    Args:
        max_abs: largest absolute difference.
        max_rel: that, over the largest magnitude of what was expected.
        cosine: the smallest cosine between rows; 1 where both are zero.
    """

    max_abs: float
    max_rel: float
    cosine: float

    def as_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def difference(expected: NDArray[np.floating], found: NDArray[np.floating]) -> Difference:
    """Of two arrays (B, ...) of one shape.

    Raises:
        ParityError: other shapes, or a number that is not finite.
    """
    a, b = expected.astype(np.float64).reshape(len(expected), -1), found.astype(np.float64).reshape(len(found), -1)
    if expected.shape != found.shape:
        raise ParityError(f"the graph gives shape {found.shape}, the model {expected.shape}")
    if not np.isfinite(b).all():
        raise ParityError("the graph gives numbers that are not finite")
    gap = float(np.abs(a - b).max(initial=0.0))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(lengths > 0, (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0), 1.0)
    return Difference(gap, gap / max(float(np.abs(a).max(initial=0.0)), 1e-12), float(cosine.min(initial=1.0)))


def check(name: str, differences: Sequence[Difference]) -> None:
    """Refuse a graph that is further from the model than `TOLERANCE`.

    Raises:
        ParityError: naming the part and how far it is.
    """
    for each in differences:
        if each.max_rel > TOLERANCE or each.cosine < 1 - TOLERANCE:
            raise ParityError(
                f"{name}: the exported graph differs from the model by {each.max_rel:.1e} of the largest value, cosine "
                f"{each.cosine:.6f}; at most {TOLERANCE:.0e} may; nothing was written, please report your torch and onnxruntime"
            )
