"""Whether the evidence of a trained system points into the lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.evaluation.grounding import pointing
from medvl.evaluation.intervals import bootstrap
from medvl.evaluation.metrics import average_of
from medvl.training.reader import Reader
from medvl.training.samples import KindData


def pointing_table(
    reader: Reader, data: Mapping[str, KindData], masks: NDArray[np.uint8], draws: int, most: int = 150
) -> dict[str, Any]:
    """How often the highest point of the evidence lies in the lesion, over findings whose place is known, and by chance.

    Args:
        reader: what is asked.
        data: of whom.
        masks: (N, R, D, H, W) bits of the kinds' `marks` on the grid of the crops.
        draws: of the bootstrap by patient.
        most: crops of each finding and region.
    """
    hits: list[tuple[str, int, float, float]] = []
    for finding in reader.findings.findings:
        part = data[finding.region]
        if finding.truth not in part.kind.marks or finding.given is not None:
            continue
        bit = part.kind.marks.index(finding.truth)
        for column in sorted(set(part.texts.columns.tolist())):
            rows = np.flatnonzero(part.texts.columns == column)
            shown = masks[part.texts.rows[rows], column] >> bit & 1
            chosen = np.flatnonzero(shown.any(axis=(1, 2, 3)))[:most]
            for start in range(0, len(chosen), 32):
                batch = chosen[start : start + 32]
                for heat, i in zip(reader.heat(finding, part, rows[batch]), batch, strict=True):
                    hit = pointing(heat.numpy(), shown[i])
                    hits.append((finding.key, int(part.texts.rows[rows[i]]), hit, float(shown[i].mean())))
    out = {}
    for name in ("all", *sorted({h[0] for h in hits})):
        mine = [h for h in hits if name in ("all", h[0])]
        rate = np.array([h[2] for h in mine])
        interval = bootstrap(average_of(rate), [h[1] for h in mine], n=draws) if draws else ()
        chance = round(float(np.mean([h[3] for h in mine])), 4)
        out[name] = {
            "n": len(mine),
            "rate": round(float(rate.mean()), 4),
            "ci": [round(v, 4) for v in interval],
            "chance": chance,
        }
    return out
