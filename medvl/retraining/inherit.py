"""What a retrained bundle takes over from its parent: calibrations of findings that the new cohort shows too seldom.

The margin of the new weights is brought to the mean and spread of the parent's margin on the same validation regions, and the
parent's calibration is read there. That keeps how often and how surely a finding is called at that hospital, which is all that
can be kept without labels. It is done only where both weights put the regions in much the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medvl.evaluation.calibration import Calibration
from medvl.heads.answering import Answering
from medvl.heads.fitting import Fitted, Regions, margins_of
from medvl.inference.asking import answering_of
from medvl.models.bundle import Bundle
from medvl.text.prompts import load_findings
from medvl.training.finish import read_all, regions_of
from medvl.training.run import Workspace

LEAST_REGIONS, LEAST_CORRELATION = 20, 0.8


@dataclass(frozen=True, eq=False)
class Carried:
    """Calibrations of `parent` for what validation patients cannot calibrate; called by `medvl.training.finish.export`."""

    parent: Bundle
    work: Workspace

    def __call__(self, fitted: Fitted, asked: Answering, regions: Mapping[str, Regions]) -> tuple[Fitted, dict[str, float]]:
        """`fitted` with what could be carried over, and by finding the correlation of old and new margins."""
        theirs = {k: Calibration(**v) for k, v in self.parent.values("calibration.json").items()}
        missing = [f for f in asked.findings.findings if f.key in theirs and f.key not in fitted.calibrations]
        if not missing:
            return fitted, {}
        findings = load_findings(self.parent.text("findings.yaml"))
        old = answering_of(self.parent, findings, findings, torch.device("cpu"), None)
        seen = regions_of(self.work.validation, read_all(old, self.work.validation))
        limits = self.parent.values("paraphrases.json")["limits"] if "paraphrases.json" in self.parent else {}
        found, alike = dict[str, Calibration](), dict[str, float]()
        for finding in missing:
            part = regions[finding.region]
            columns = [f.key for f in asked.asked(part.names[0])]
            before, after = (
                margins_of(by, of)[:, columns.index(finding.key)] for by, of in ((old, seen[finding.region]), (asked, part))
            )
            matched = carried_over(theirs[finding.key], before, after)
            if matched is not None:
                found[finding.key], alike[finding.key] = matched
        kept = {key: limits[key] for key in found if key in limits}
        both = replace(fitted, calibrations={**fitted.calibrations, **found}, limits={**fitted.limits, **kept})
        return both, alike


def carried_over(
    calibration: Calibration, before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[Calibration, float] | None:
    """The calibration for new margins, and the correlation of both; None where too few regions or another order.

    Args:
        calibration: of the old margins.
        before: (N,) margins of the old weights on some regions.
        after: (N,) margins of the new weights on the same.
    """
    known = np.isfinite(before) & np.isfinite(after)
    x, y = before[known], after[known]
    if len(x) < LEAST_REGIONS or min(x.std(), y.std()) < 1e-9:
        return None
    alike = float(np.corrcoef(x, y)[0, 1])
    if alike < LEAST_CORRELATION:
        return None
    scale = float(x.std() / y.std())
    shift = float(x.mean() - scale * y.mean())  # an old margin is scale * new + shift
    changed = replace(
        calibration,
        slope=calibration.slope * scale,
        offset=calibration.offset + calibration.slope * shift,
        covariance=None,
        knots=tuple(((place - shift) / scale, value) for place, value in calibration.knots),
    )
    return changed, round(alike, 4)
