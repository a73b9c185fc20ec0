"""Do the maps point at the finding, and is what they point at what the answer rests on? Pointing game and deletion test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medvl.evaluation.estimates import estimate, missing, p_value, rate
from medvl.evaluation.intervals import Draws
from medvl.evaluation.metrics import average_of
from medvl.evaluation.tasks import Setting

DELETION = ("before", "after", "control")


def grounding(setting: Setting) -> dict[str, Any]:
    """By finding and for all: how often the peak lies in the lesion or near it, by chance, and by how much a score needs it."""
    told = setting.table.evidence
    if told is None or not len(told):
        return {
            "na": "the embedded cohort compared no maps with lesions; phantoms through scans do (medvl embed without --crops)"
        }
    out: dict[str, Any] = {}
    for name in ("all", *sorted(told["finding"].unique())):
        part = told if name == "all" else told[told["finding"] == name]
        if len(part) < setting.protocol.minimum.present:
            out[name] = {"n": len(part)} | missing(f"{len(part)} lesions; at least {setting.protocol.minimum.present} are needed")
            continue
        out[name] = {
            "n": len(part),
            "rate": rate(part["hit"], part["patient_id"], setting.draws),
            "near": rate(part["near"], part["patient_id"], setting.draws),
            "chance": round(float(part["share"].mean()), 4),
            "deletion": deletion(part, setting.draws, setting.protocol.minimum.present),
        }
    return {"findings": out}


def deletion(part: pd.DataFrame, draws: Draws, least: int) -> dict[str, Any]:
    """By how much calibrated scores of lesions fall without the peak, and without as much elsewhere in the region.

    Args:
        part: lesions with the columns of `DELETION` (see `Embedded.evidence`).
        draws: of patients.
        least: lesions that it takes.

    Returns:
        `n` lesions that had room for a control and `n_without` those that had not; the mean fall `at_peak` and `elsewhere`, their
        paired `difference` with its `p`, and `larger`, the share of lesions whose score falls more at the peak.
    """
    if not set(DELETION) <= set(part.columns):
        return missing("these embeddings hold no deletion tests; make them anew with medvl embed")
    known = part[np.isfinite(part[list(DELETION)]).all(axis=1)]
    told: dict[str, Any] = {"n": len(known), "n_without": len(part) - len(known)}
    if len(known) < least:
        return told | missing(f"{len(known)} lesions with room for a control; at least {least} are needed")
    before, after, control = (known[name].to_numpy(dtype=np.float64) for name in DELETION)
    who = known["patient_id"]
    differences = draws.values(average_of(control - after), who)
    return told | {
        "at_peak": estimate(draws.values(average_of(before - after), who)),
        "elsewhere": estimate(draws.values(average_of(before - control), who)),
        "difference": estimate(differences) | {"p": p_value(differences[1:])},
        "larger": rate(after < control, who, draws),
    }
