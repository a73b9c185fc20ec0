"""Labels of phantom masses for downstream tasks, from the phantoms' truth."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.imaging.phantom.sample import sample_patient
from medvl.renal_score import growth_class, radius_class

LEAST_OUTSIDE = 0.05  # share outside the kidney below which a mass is endophytic


def phantom_labels(embedded: Sequence[Embedded], seed: int | None = None) -> pd.DataFrame:
    """One row a mass: R from the size, E from the share outside, L from the pole, and survival of the patient.

    The truth holds no distance to the sinus (N), no face (A), no pathology and no cause of death, so these columns are missing.
    A pole says that a mass lies outside the polar lines or between them, never that it crosses one.

    Args:
        embedded: cohorts of the demo site's phantoms.
        seed: of the phantoms, where neither the patients nor the cohort tell it.

    Raises:
        ConfigError: a cohort is not of phantoms.
    """
    rows = []
    for table in embedded:
        told = table.patients["seed"] if "seed" in table.patients else (_seed(table) if seed is None else seed)
        drawn = pd.Series(told, index=table.patients.index)
        for who, own in drawn.items():
            rows += _masses(str(who), int(own))
    return pd.DataFrame(rows).drop_duplicates(["patient_id", "region"], ignore_index=True)


def _seed(table: Embedded) -> int:
    name = str(table.source.get("cohort", ""))
    found = re.fullmatch(r"phantom seed (\d+)", name)
    if not found:
        raise ConfigError(
            f"cohort {name or 'without a name'} is not of phantoms, whose truth is known; give labels (--labels CSV)"
        )
    return int(found[1])


def _masses(who: str, seed: int) -> list[dict[str, object]]:
    person = sample_patient(seed, int(who[2:]))
    return [
        {
            "patient_id": who,
            "region": f"kidney_{kidney.side}",
            "size_mm": kidney.mass.size_mm,
            "renal_radius": radius_class(kidney.mass.size_mm),
            "mass_growth": growth_class(kidney.mass.exophytic_fraction, LEAST_OUTSIDE),
            "mass_polar_lines": "between" if kidney.mass.pole not in ("upper", "lower") else "outside",
            "os_days": person.time_days,
            "os_event": int(person.event),
        }
        for kidney in (person.kidney_left, person.kidney_right)
        if kidney.mass is not None
    ]
