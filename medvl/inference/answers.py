"""What is said of one scan: its regions, the answers in each, and the risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medvl.evaluation.calibration import Calibration
from medvl.geometry import Geometry
from medvl.heads.paraphrases import Spread
from medvl.inference.evidence import Evidence
from medvl.models.localiser import Place
from medvl.records import Reason
from medvl.text.prompts import Finding


@dataclass(frozen=True, eq=False)
class RegionResult:
    """One region: where, how complete, how familiar; `hu` and what was made of it only when it was usable.

    Args:
        embedding: (E,) unit vector; pooled: (P,) image features; answers: (K,) from which margins follow.
    """

    name: str
    place: Place | None
    source: str
    geometry: Geometry | None
    covered: float
    distance: float | None
    limit: float | None
    reasons: tuple[Reason, ...]
    hu: NDArray[np.int16] | None = None
    embedding: Tensor | None = None
    pooled: NDArray[np.float32] | None = None
    answers: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FindingResult:
    """One answer: calibrated score, verdict, why undecided, and the evidence.

    Args:
        score: calibrated probability; None where the region was not usable or the finding is not calibrated.
        calibration: None where the bundle holds none for this question.
        prompts: present and absent sentences; empty where queries answer.
        margin: uncalibrated score; percentile: of the margin among the bundle's reference regions, 0 to 100, where it has some.
        spread: of the score over paraphrases.
    """

    finding: Finding
    region: str
    score: float | None
    verdict: str
    calibration: Calibration | None
    reasons: tuple[Reason, ...]
    prompts: tuple[list[str], list[str]]
    heat: NDArray[np.float32] | None = None
    heat_geometry: Geometry | None = None
    evidence: Evidence | None = None
    margin: float | None = None
    percentile: float | None = None
    spread: Spread | None = None


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Everything the model says of one scan."""

    regions: dict[str, RegionResult]
    findings: tuple[FindingResult, ...]
    risk: Mapping[str, Any] | None
    timings_s: dict[str, float] = field(default_factory=dict)
