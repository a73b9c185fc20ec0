"""What is kept of validation regions so that margins become verdicts: prior, calibrations, limits of disagreement, references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.evaluation.calibration import Calibration, Method, calibrate
from medvl.evaluation.metrics import auroc
from medvl.heads.answering import Answering
from medvl.heads.paraphrases import DRAWS, Paraphrases, limit_of
from medvl.heads.priors import weigh_priors
from medvl.heads.ways import Towers
from medvl.heads.zeroshot import answered

REFERENCES = 256
Asked = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions of one kind of validation patients.

    Args:
        names: of the regions; patients: (N,) whose; answers: (N, K); labels: of each, by attribute.
    """

    names: Sequence[str]
    patients: NDArray[Any]
    answers: Tensor
    labels: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Fitted:
    """By finding: calibration, validation AUROC, and limits of disagreement; the prior and what each would do."""

    calibrations: dict[str, Calibration] = field(default_factory=dict)
    auroc: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    prior: str = "none"
    priors: dict[str, dict[str, float]] = field(default_factory=dict)


def margins_of(answering: Answering, part: Regions) -> NDArray[np.float64]:
    """(N, F) margins of the findings asked of a kind of region."""
    out = np.full((len(part.names), len(answering.asked(part.names[0])) if len(part.names) else 0), np.nan)
    for region in dict.fromkeys(part.names):
        rows = np.array([name == region for name in part.names])
        out[rows] = answering.margins(region, part.answers[torch.from_numpy(rows)]).double().numpy()
    return out


def asked_of(answering: Answering, parts: Mapping[str, Regions]) -> dict[str, Asked]:
    """Finding to labels (n,), margins (n,) and row numbers (n,) of its kind's regions that answer it."""
    out = {}
    for kind, part in parts.items():
        margins = margins_of(answering, part)
        for column, finding in enumerate(f for f in answering.findings.findings if f.region == kind):
            if len(part.names):
                out[finding.key] = answered(finding, answering.findings, part.labels, margins[:, column])
    return out


def choose_prior(answering: Answering, parts: Mapping[str, Regions], nulls: Mapping[str, Mapping[str, Tensor]]) -> Fitted:
    """The prior that helps on validation patients, set in `answering`; ``none`` where none does."""
    told = {}
    for name, null in nulls.items():
        answering.prior = dict(null)
        found = asked_of(answering, parts)
        who = {f.key: parts[f.region].patients for f in answering.findings.findings if f.region in parts}
        told[name] = {key: (y, x, who[key][rows]) for key, (y, x, rows) in found.items()}
    best, table = weigh_priors(told)
    answering.prior = dict(nulls[best])
    return Fitted(prior=best, priors=table)


def fit_findings(
    answering: Answering, parts: Mapping[str, Regions], *, method: Method = "platt", draws: int = DRAWS, seed: int = 0
) -> Fitted:
    """Calibrations and limits of every finding with enough answers of both kinds; others are left out.

    Args:
        answering: the system, its prior chosen.
        parts: validation regions by kind.
        method: of calibration.
        draws: of the paraphrases.
        seed: of these draws.
    """
    fitted, kind_of = Fitted(), {f.key: f.region for f in answering.findings.findings}
    rows_of = dict[str, NDArray[np.int64]]()
    for key, (labels, margins, rows) in asked_of(answering, parts).items():
        try:
            patients = parts[kind_of[key]].patients[rows]
            fitted.calibrations[key] = calibrate(labels, margins, method, clusters=patients)
        except ValueError:
            continue
        fitted.auroc[key], rows_of[key] = auroc(labels, margins), rows
    if isinstance(answering, Towers):
        paraphrases = Paraphrases(answering, draws, seed)
        for kind, part in parts.items():
            _limit(fitted, paraphrases, part, {key: rows for key, rows in rows_of.items() if kind_of[key] == kind})
    return fitted


def _limit(fitted: Fitted, paraphrases: Paraphrases, part: Regions, rows_of: Mapping[str, NDArray[np.int64]]) -> None:
    """Fill in the limits of one kind's findings."""
    keys, towers = list(rows_of), paraphrases.towers
    drawn = {key: np.full((len(part.names), paraphrases.draws), np.nan) for key in keys}
    for region in dict.fromkeys(part.names):
        here = np.array([name == region for name in part.names])
        for key, values in paraphrases.margins(region, part.answers[torch.from_numpy(here)], keys).items():
            drawn[key][here] = values
    margins = margins_of(towers, part) if keys else np.empty((0, 0))
    columns = [f.key for f in towers.asked(part.names[0])] if keys else []
    for key, rows in rows_of.items():
        if np.isfinite(drawn[key]).all():
            here = margins[rows, columns.index(key)]
            fitted.limits[key] = limit_of(fitted.calibrations[key], here, drawn[key][rows])


def reference_of(regions: Mapping[str, Regions]) -> dict[str, Tensor]:
    """Region to the answers (n, K) of at most `REFERENCES` of its validation rows, in an order that tells nothing."""
    rng, out = np.random.default_rng(0), dict[str, Tensor]()
    for part in regions.values():
        for region in dict.fromkeys(part.names):
            rows = rng.permutation(np.flatnonzero([name == region for name in part.names]))[:REFERENCES]
            out[region] = part.answers[torch.from_numpy(rows)].half()
    return out
