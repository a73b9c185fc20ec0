"""Whether values can be Hounsfield units at all, judged from their histogram before a model sees them.

Air is -1000, water 0: every CT of a body holds air or lung near -1000, or at least fat near -100. The check looks for those
landmarks at their place, and one intercept (1024) too low or too high. It knows no anatomy: a volume of noise between -1024 and
-770 passes, because nothing in its histogram contradicts HU, and other checks must catch it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.records import Reason

_MIN_VOXELS = 512  # fewer tell nothing
_SAMPLE = 1 << 20  # voxels looked at, on a regular stride
_INTERCEPT = 1024.0
_SOFT = (-150.0, 150.0)  # fat to soft tissue


def hu_check(hu: NDArray[Any], *, stored_bits: int | None = None) -> tuple[Reason, ...]:
    """Why `hu` cannot be Hounsfield units; empty when nothing speaks against it.

    Args:
        hu: (D, H, W) of any real dtype, after rescale.
        stored_bits: bits per stored value where known; 8 bits cannot hold the range of CT.

    Returns:
        At most one reason: ``rescaled_twice`` (everything lies an intercept too low), ``rescale_missing`` (an intercept too
        high) or ``not_hounsfield`` (8-bit, windowed, normalised, or another modality). Fewer than 512 voxels give no verdict.
    """
    if stored_bits is not None and stored_bits <= 8:
        return _not_hounsfield(f"values are stored in {stored_bits} bits, too few for the range of CT")
    values = _sample(hu)
    if values.size < _MIN_VOXELS:
        return ()
    values = _without_padding(values)
    if values.size < _MIN_VOXELS:
        return _not_hounsfield("all voxels hold one padding value")
    if _is_rescaled_twice(values):
        message = (
            f"air lies near {_mode(values, -2300, -1250):.0f} instead of -1000, one intercept too low; "
            "the rescale was applied twice: convert the original DICOM again"
        )
        return (Reason("rescaled_twice", message),)
    if _is_rescale_missing(values):
        message = (
            f"soft tissue lies near {_mode(values, 874, 1174):.0f} instead of 0 to 100 and nothing below 0; "
            "the rescale intercept was not applied: convert the original DICOM again"
        )
        return (Reason("rescale_missing", message),)
    return _foreign_values(values)


def _foreign_values(values: NDArray[np.float64]) -> tuple[Reason, ...]:
    """``not_hounsfield`` where landmarks of CT are absent or cut off."""
    low, high = np.quantile(values, (0.001, 0.999))
    span = f"values run from {low:.4g} to {high:.4g}"
    if _share(values, -30.0, 6000.0) > 0.995:
        return _not_hounsfield(f"{span}, without air near -1000 or fat near -100")
    if np.mean(np.abs(values) > 6000.0) > 0.01:
        return _not_hounsfield(f"{span}, far beyond the range of CT")
    if -700.0 < high < -200.0:
        return _not_hounsfield(f"{span}: more than air, yet nothing as dense as fat")
    if values.min() > -850.0 and np.mean(values == values.min()) > 0.05:
        return _not_hounsfield(f"{np.mean(values == values.min()):.0%} of the voxels are cut off at {values.min():.4g}")
    return ()


def _not_hounsfield(what: str) -> tuple[Reason, ...]:
    """The reason with its next step."""
    return (Reason("not_hounsfield", f"{what}; give the CT in Hounsfield units, neither windowed, normalised nor 8-bit"),)


def _sample(hu: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) finite values on a regular stride through all axes."""
    flat = np.asarray(hu).reshape(-1)
    stride = max(1, flat.size // _SAMPLE)
    if stride % 2 == 0:
        stride += 1  # an odd stride does not visit the same columns of every row
    values: NDArray[np.float64] = flat[::stride].astype(np.float64)
    return np.asarray(values[np.isfinite(values)])


def _without_padding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` less the one value below -1250 that fills the outside of a round field of view, if there is one."""
    below = values[values < -1250.0]
    if below.size == 0:
        return values
    levels, counts = np.unique(below, return_counts=True)
    return np.asarray(values[values != levels[np.argmax(counts)]])


def _share(values: NDArray[np.float64], low: float, high: float) -> float:
    """Fraction of values in [low, high]."""
    return float(np.mean((values >= low) & (values <= high)))


def _is_rescaled_twice(values: NDArray[np.float64]) -> bool:
    """Air, or in a crop without air the fat, lies below anything CT can show, and hardly any soft tissue at its place."""
    soft = _share(values, *_SOFT)
    shifted_soft = _share(values, _SOFT[0] - _INTERCEPT, _SOFT[1] - _INTERCEPT)
    air, fat = _share(values, -2300.0, -1250.0), _share(values, -1300.0, -1060.0)
    return soft < 0.05 and soft < 0.5 * shifted_soft and (air > 0.01 or fat > 0.10)


def _is_rescale_missing(values: NDArray[np.float64]) -> bool:
    """Nothing below 0, soft tissue one intercept too high, and little between it and lung or air."""
    shifted_soft = _share(values, _SOFT[0] + _INTERCEPT, _SOFT[1] + _INTERCEPT)
    between = _share(values, 350.0, 850.0)
    return float(np.mean(values < -30.0)) < 0.005 and shifted_soft > 0.03 and between < shifted_soft


def _mode(values: NDArray[np.float64], low: float, high: float) -> float:
    """Most common value in [low, high], to 10 HU."""
    counts, edges = np.histogram(values, bins=max(1, int((high - low) / 10)), range=(low, high))
    peak = int(np.argmax(counts))
    return float((edges[peak] + edges[peak + 1]) / 2)
