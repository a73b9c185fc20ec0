"""Do these numbers look like Hounsfield units? What only the pixels of a CT-tagged series can show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.records import Reason

N_SAMPLES = 7


def sample_indices(n: int) -> list[int]:
    """Slices that `inspect` reads and `read` judges by, so that both always agree."""
    return sorted({round(k * (n - 1) / max(1, N_SAMPLES - 1)) for k in range(N_SAMPLES)})


def check_values(sample: NDArray[Any], padding: float | None = None) -> Reason | None:
    """Why values tagged CT are not HU, None when they may be.

    Args:
        sample: (N, H, W) rescaled values of some slices.
        padding: value outside the field of view, left out of the judgement.

    Returns:
        ``wrong_modality`` when nothing as light as fat or air is there (MR values start at 0), ``rescale_missing`` when water
        lies near 1024, ``rescaled_twice`` when air lies near -2048, ``not_hounsfield`` for constant or impossibly wide values.
    """
    flat = sample.reshape(-1)[:: max(1, sample.size // 400_000)]
    if padding is not None and (flat != padding).any():
        flat = flat[flat != padding]
    low, high = float(flat.min()), float(flat.max())
    if low == high:
        return Reason("not_hounsfield", f"all sampled voxels hold {low:g}; the images are blank")
    if low >= -50:
        if _share(flat, 874, 1174) > max(0.03, _share(flat, 350, 850)):
            return Reason(
                "rescale_missing", "soft tissue lies near 1024 and nothing below 0: the rescale intercept is not in the header"
            )
        message = f"tagged CT, but values run from {low:g} to {high:g}, nothing as light as fat or air; MR behind a CT tag?"
        return Reason("wrong_modality", message)
    soft, shifted = _share(flat, -150, 150), _share(flat, -1174, -874)
    below = flat[(flat > max(low, -2300)) & (flat < -1250)]
    if soft < 0.05 and soft < 0.5 * shifted and below.size > 0.01 * flat.size:
        where = f"{100 * below.size / flat.size:.0f} % of voxels near {np.median(below):.0f} and soft tissue near -1024"
        return Reason("rescaled_twice", f"{where}: the rescale was applied twice, convert the original again")
    inside = _share(flat, -1200, 4096)
    if inside < 0.05:
        return Reason(
            "not_hounsfield",
            f"only {100 * inside:.0f} % of voxels lie between -1200 and 4096 HU; the values are on another scale",
        )
    return None


def _share(values: NDArray[Any], low: float, high: float) -> float:
    """Fraction of values in [low, high]."""
    return float(((values >= low) & (values <= high)).mean())
