"""The localiser learns the centres of regions from whole phantom scans, cut short at random along the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medvl.geometry import Geometry
from medvl.imaging.phantom.render import region_centers, render, scanner_geometry
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.resample import resample
from medvl.models.config import LocaliserConfig
from medvl.models.localiser import Localiser, coarse_geometry
from medvl.recipe import Recipe
from medvl.training.attributes import Progress
from medvl.training.optim import adamw, schedule

PAINT_MM = (5.0, 4.0, 4.0)
POSITIVE_WEIGHT = 25.0


@dataclass(frozen=True, eq=False)
class CoarseScan:
    """One whole phantom on the localiser's grid: (D, H, W) int16 HU, its grid and the true centres by region."""

    hu: NDArray[np.int16]
    geometry: Geometry
    centers: dict[str, NDArray[np.float64]]


def coarse_scan(seed: int, number: int, spacing_mm: float) -> CoarseScan:
    """Paint a whole phantom with a random field of view and resample it as the localiser would."""
    patient = sample_patient(seed, number)
    volume = render(patient, scanner_geometry(patient, PAINT_MM))
    grid = coarse_geometry(volume.geometry, spacing_mm)
    return CoarseScan(np.rint(resample(volume, grid)).astype(np.int16), grid, region_centers(patient))


def heat_targets(scan: CoarseScan, config: LocaliserConfig) -> NDArray[np.float32]:
    """(R, D, H, W) Gaussian blobs of height 1 at the centres, cut at the edge of the grid."""
    d, h, w = scan.geometry.shape_dhw
    index = [scan.geometry.to_index(scan.centers[name]) for name in config.regions]
    sigma = config.blob_mm / config.spacing_mm
    return np.stack(
        [
            np.exp(
                -(
                    (np.arange(d)[:, None, None] - c[0]) ** 2
                    + (np.arange(h)[None, :, None] - c[1]) ** 2
                    + (np.arange(w)[None, None, :] - c[2]) ** 2
                )
                / (2 * sigma**2)
            )
            for c in index
        ]
    ).astype(np.float32)


def train_localiser(model: Localiser, recipe: Recipe, n_scans: int, progress: Progress) -> None:
    """Train in place on `n_scans` phantoms of the training numbers."""
    config, stage = recipe.localiser, recipe.localise
    scans = []
    for number in range(n_scans):
        scans.append(coarse_scan(recipe.cohort.seed, number, config.spacing_mm))
        progress("localiser scans", number + 1, n_scans, {})
    rng = np.random.default_rng([recipe.seed, 9])
    optimiser = adamw([(model, 1.0)], stage)
    rate = schedule(optimiser, stage)
    model.train()
    for step in range(stage.steps):
        losses = [_one(model, scans[int(i)], rng) for i in rng.integers(len(scans), size=stage.batch)]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate.step()
        progress("localiser", step + 1, stage.steps, {"loss": float(loss.detach())})


def _one(model: Localiser, scan: CoarseScan, rng: np.random.Generator) -> Tensor:
    heat = heat_targets(scan, model.config)
    depth = scan.hu.shape[0]
    keep = max(12, int(depth * rng.uniform(0.45, 1.0)) // 4 * 4)
    start = int(rng.integers(0, depth - keep + 1))
    part = slice(start, start + keep)
    hu = scan.hu[part] * rng.normal(1, 0.03) + rng.normal(0, 10) + rng.standard_normal(scan.hu[part].shape) * rng.uniform(0, 12)
    target = torch.from_numpy(heat[:, part])[None]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(model.windows(hu.astype(np.float32)))
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    anywhere = target.amax(1, keepdim=True)  # naming the wrong organ costs as much as missing the right one
    return ((1 + POSITIVE_WEIGHT * anywhere) * loss).mean()
