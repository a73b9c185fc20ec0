"""Answers of a null image: what a system would say if it were shown nothing in particular, to be taken off every answer.

Whether that helps is measured on validation patients, and it is kept off where it does not: the margins of one region move by a
constant, so only findings asked of several regions (left and right, each with its own prompts) can be put in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.evaluation.calibration import calibrate
from medvl.evaluation.metrics import auroc
from medvl.heads.answering import Answering
from medvl.imaging.preprocess import Contract, window

KINDS = ("none", "mean", "air", "tissue")
FLAT_HU = {"air": -1000, "tissue": 40}
FOLDS = 4
LEAST_GAIN = 5e-3


def null_answers(answering: Answering, contract: Contract, training: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Prior to region to null answers (K,): the mean of its kind in training, and grids of one value: air, soft tissue.

    Args:
        answering: the system; its own prior plays no part.
        contract: grids and windows of the regions.
        training: kind to answers (N, K) of training regions.
    """
    out: dict[str, dict[str, Tensor]] = {"none": {}, "mean": {}, "air": {}, "tissue": {}}
    for index, (kind, regions) in enumerate(answering.kinds.items()):
        mean = training[kind].mean(0)
        for region in regions:
            out["mean"][region] = mean
            spec = contract[region]
            for name, hu in FLAT_HU.items():
                flat = np.full(spec.grid_dhw, hu, np.int16)
                pixels = torch.from_numpy(window(flat, spec.windows_hu))[None]
                out[name][region] = answering.read(pixels, index).answers[0]
    return out


def weigh_priors(
    asked: Mapping[str, Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]],
) -> tuple[str, dict[str, dict[str, float]]]:
    """The prior to use, and what each does on validation patients.

    Args:
        asked: prior to finding to labels (n,), margins (n,) and patients (n,) of validation regions.

    Returns:
        A prior other than ``none`` only if its mean AUROC is higher by `LEAST_GAIN` and the cross-validated log loss of its
        calibrated scores (patients never on both sides) lower than without; and ``auroc`` and ``log_loss`` by prior, means
        over findings.
    """
    table = {}
    for prior, findings in asked.items():
        kept = [rows for rows in findings.values() if min(int(rows[0].sum()), int((1 - rows[0]).sum())) >= 2 * FOLDS]
        if kept:
            losses = [_held_out_loss(*rows) for rows in kept]
            areas = [auroc(labels, margins) for labels, margins, _ in kept]
            table[prior] = {
                "auroc": float(np.mean(areas)),
                "log_loss": float(np.mean([x for x in losses if np.isfinite(x)] or [np.nan])),
            }
    best = "none"
    for prior, row in table.items():
        plain = table["none"]
        better = row["auroc"] > plain["auroc"] + LEAST_GAIN and row["log_loss"] < plain["log_loss"]
        if better and (best == "none" or row["log_loss"] < table[best]["log_loss"]):
            best = prior
    return best, table


def _held_out_loss(labels: NDArray[Any], margins: NDArray[Any], patients: NDArray[Any]) -> float:
    """Mean log loss of scores calibrated on other patients; NaN where a fold lacks a class."""
    numbers = np.unique(patients, return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(int(numbers.max()) + 1)[numbers] % FOLDS
    losses = np.full(len(labels), np.nan)
    for k in range(FOLDS):
        held = fold == k
        try:
            p = calibrate(labels[~held], margins[~held]).probability(margins[held]).clip(1e-6, 1 - 1e-6)
        except ValueError:
            return float("nan")
        losses[held] = -np.where(labels[held] == 1, np.log(p), np.log(1 - p))
    return float(losses.mean())
